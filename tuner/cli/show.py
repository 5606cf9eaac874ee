"""`tuner show`: shows all that is known of one trial."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option


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
    from tuner.error_text import shown_path
    from tuner.report.machine import trial_json
    from tuner.report.standing import asked_for
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
    trial = asked_for(record, number, name)
    number = trial.number
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
