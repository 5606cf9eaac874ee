"""`tuner compare`: two searches beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import Command, json_option, storage_option

if TYPE_CHECKING:
    from tuner.report.compare import Compared


@click.command("compare", cls=Command, prints=True, short_help="Two searches beside each other.")
@click.argument("one")
@click.argument("other")
@storage_option
@json_option
def command(one: str, other: str, storage_path: Path, as_json: bool) -> int:
    """The searches ONE and OTHER beside each other: their winners, what they cost, which settings differ, and whether
    their values can be compared at all.

    A name may be a path to a run folder, where the two lie in different places.
    """
    import sys

    from tuner.cli.output import answer, answer_json, labels_of_run, width
    from tuner.report.compare import comparison, comparison_json
    from tuner.results.folder import open_run

    folders = [open_run(storage_path, name) for name in (one, other)]
    left, right = (_read(folder.path, name) for folder, name in zip(folders, (one, other), strict=True))
    if as_json:
        answer_json(comparison_json(left, right))
        return 0
    labels = {**labels_of_run(folders[1]), **labels_of_run(folders[0])}
    answer(comparison(left, right, width(sys.stdout), labels))
    return 0


def _read(path: Path, name: str) -> Compared:
    from tuner.contract import InputError
    from tuner.report.compare import Compared
    from tuner.results.folder import RunFolder
    from tuner.results.untrusted_read import read_object

    folder = RunFolder(path)
    try:
        resolved = read_object(folder.resolved)
    except InputError:
        resolved = {}
    return Compared(name, folder.record(), resolved)
