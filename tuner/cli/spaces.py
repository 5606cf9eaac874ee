"""`tuner spaces`: lists the shipped search spaces, or shows one."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, allow_module_option, json_option


@click.command("spaces", cls=Command, prints=True, short_help="The shipped search spaces, and what is in one.")
@click.argument("name", required=False)
@click.option("--program", default="sft", metavar="PROGRAM", help="What fine-tunes: sft, or package.module:Class.")
@allow_module_option
@json_option
@click.option("--schema", is_flag=True, help="The JSON Schema of space files, for editors.")
def command(name: str | None, program: str, allow_module: tuple[str, ...], as_json: bool, schema: bool) -> int:
    """Lists the shipped search spaces; with NAME (or a YAML file, or module:function), what that space searches."""
    import sys

    from tuner.cli.output import answer, answer_json, answer_schema, width
    from tuner.config import shipped_spaces, space_schema, typed_program
    from tuner.error_text import shown_path
    from tuner.importing import Permission
    from tuner.report.spaces import space_list, space_report
    from tuner.space import load_space

    permission = Permission.given(allow_module, beside=False)
    trains = typed_program(program, "--program", permission)
    if schema:
        answer_schema(space_schema(trains.PARAMETERS))
    elif name is not None:
        space = load_space(name, trains, Path.cwd(), permission)
        path = shown_path(space.path) if space.path else ""
        if as_json:
            answer_json({**space.to_dict(), "path": str(space.path) if space.path else None})
        else:
            answer(space_report(space, width(sys.stdout), path=path))
    else:
        found = [load_space(known, trains, Path.cwd()) for known in shipped_spaces()]
        if as_json:
            answer_json({"spaces": [space.to_dict() for space in found]})
        else:
            answer(space_list(found, width(sys.stdout)))
    return 0
