"""`tuner plan`: says what a search would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tuner.cli.options import Command, experiment_options, json_option


@click.command("plan", cls=Command, prints=True, short_help="Say what a search would do; start nothing.")
@experiment_options()
@json_option
@click.option("--schema", is_flag=True, help="The JSON Schema of experiment files, for editors.")
def command(file: Path | None, overrides: tuple[str, ...], as_json: bool, schema: bool, **values: Any) -> int:
    """Says what `search` would do with the same FILE and options, and starts nothing.

    Reads and checks the settings and the space, and looks at the rows where they and the tokenizer are on this machine
    (`data` shows more). The weights are not opened, and no code that only FILE names is run (--allow-module).
    """
    import sys

    from tuner.cli.options import load, permitted, settings_given
    from tuner.cli.output import answer, answer_json, answer_schema, width

    flags, permission = settings_given(values), permitted(values, runs=False)
    if schema:
        from tuner.config import experiment_schema, typed_program

        program = typed_program(flags.get("run.program", "sft"), "--program", permission)
        answer_schema(experiment_schema(program))
        return 0
    experiment = load(file, overrides, flags, permission=permission)
    from tuner.driver.plan import look_at_rows, make_plan

    plan = make_plan(experiment)
    look, refused = look_at_rows(plan)
    if as_json:
        from dataclasses import asdict

        answer_json({**plan.to_dict(), "data": look and asdict(look), "refused": refused or None})
        return 0
    from tuner.report.plan import plan_report

    answer(plan_report(plan, width(sys.stdout), look, refused))
    return 0
