"""`tuner show`: shows all that is known of one trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import Command, address_option, json_option, storage_option

if TYPE_CHECKING:
    from tuner.results.records import SearchRecord


@click.command("show", cls=Command, prints=True, short_help="One trial in full: parameters, curve, ending.")
@click.argument("name")
@click.argument("number", type=int, required=False)
@storage_option
@address_option
@json_option
def command(name: str, number: int | None, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Trial NUMBER of the search NAME: its parameters, curve, set-up, ending, traceback, and where its adapter is.

    Without NUMBER, the best trial.
    """
    import sys

    from tuner.cli.output import answer, answer_json, width
    from tuner.contract import InputError
    from tuner.error_text import shown_path
    from tuner.report.machine import trial_json
    from tuner.report.trial import trial_report
    from tuner.results.adapters import adapter_of
    from tuner.results.folder import open_run

    folder = None
    if address:
        from tuner.cluster.jobs import Cluster
        from tuner.cluster.searches import read_search

        record = read_search(Cluster(address), name).record
    else:
        folder = open_run(storage_path, name)
        name, record = folder.name, folder.record()
    if number is None:
        number = _winner(record, name)
    trial = record.trials.get(number)
    if trial is None:
        last = max(record.trials, default=None)
        raise InputError(
            f"there is no trial {number} in {name}",
            where="NUMBER",
            expected=f"0 to {last}" if last is not None else "a search that has begun a trial",
        )
    adapter = trial.adapter
    if folder:
        place = adapter_of(folder, record, number)
        adapter = str(place) if place is not None else None
    if as_json:
        answer_json({**trial_json(trial), "name": name, "adapter": adapter})
        return 0
    log = folder.log(number) if folder else None
    shown = shown_path(Path(adapter)) if adapter and folder else ""
    log_shown = shown_path(log) if log and log.exists() else ""
    answer(trial_report(record, number, width(sys.stdout), adapter=shown, log=log_shown))
    return 0


def _winner(record: SearchRecord, name: str) -> int:
    """The number of the best trial. Raises InputError where there is none yet."""
    from tuner.contract import InputError
    from tuner.report.standing import leader

    best = leader(record)
    if best is None:
        raise InputError(
            f"no trial of {name} has a {record.objective.title} that can be compared",
            where="NUMBER",
            expected="the number of a trial" if record.trials else "a search that has begun a trial",
        )
    return best.number
