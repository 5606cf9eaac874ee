"""`tuner model`: shows a base before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, json_option, setting_options

if TYPE_CHECKING:
    from tuner.config import Experiment


@click.command("model", cls=Command, prints=True, short_help="Show a base: parts, targets, memory, chat template.")
@click.argument("target", required=False, metavar="[NAME|FOLDER|FILE]")
@setting_options("--model-revision", "--trust-remote-code", "--program")
@json_option
def command(target: str | None, overrides: tuple[str, ...], as_json: bool, **values: Any) -> int:
    """Shows what a base is before anything runs: its class, its parameters by part, what each value of target_modules
    adapts and how much of the base that trains, the memory it takes, whether trials share it, and its chat template.

    The base is a hub id or a FOLDER, or that of a search FILE (YAML); without one, the embedded example's. No weights
    are read, and of a base on the hub none are downloaded.
    """
    import sys
    import tempfile

    from tuner.cli.output import answer, answer_json, width
    from tuner.contract import BaseLook
    from tuner.report.base import base_report
    from tuner.subprocess_call import SubprocessProgram

    experiment = _experiment(target, overrides, values)
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        settings = experiment.settings.model_dump(mode="json")
        call = SubprocessProgram(experiment.program, "look_at_base", settings, log=Path(place, "model.log"))
        try:
            look = BaseLook.from_dict(call.result())
        finally:
            call.close()
    if as_json:
        answer_json({"facts": dict(look.facts), "texts": dict(look.texts), "notes": look.notes, **look.data})
    else:
        answer(base_report(look, width(sys.stdout)))
    return 0


def _experiment(target: str | None, overrides: tuple[str, ...], values: dict[str, Any]) -> Experiment:
    """The settings to look with: of a search file, or the defaults with this base."""
    from tuner.cli.options import load, permitted, settings_given
    from tuner.config import demo_path
    from tuner.config.flags import FLAGS

    flags, permission = settings_given(values), permitted(values, runs=False)
    path = Path(target) if target is not None else None
    if path is None or path.suffix.lower() in (".yaml", ".yml"):
        return load(path, overrides, flags, permission=permission)
    flags[FLAGS["--model"]] = target
    flags[FLAGS["--data"]] = str(demo_path().parent / "train.jsonl")  # none are read
    return load(None, overrides, flags, permission=permission)
