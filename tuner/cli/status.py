"""`tuner status`: shows how a search stands, from its ledger."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option
from tuner.signals import signals_raised


@click.command("status", cls=Command, prints=True, short_help="How a search stands or ended.")
@click.argument("name", required=False)
@storage_option
@address_option
@click.option("--follow", is_flag=True, help="Show the search until it ends; Ctrl-C leaves it running.")
@click.option("--plain", is_flag=True, help="With --follow: lines instead of the live view.")
@json_option
def command(name: str | None, storage_path: Path, address: str | None, follow: bool, plain: bool, as_json: bool) -> int:
    """How the search NAME stands, or how it ended: every trial, the best so far, what was found, what to do next.
    Without NAME, the runs of --storage-path.

    Reads the ledger and nothing else, so it is safe while the search runs. With --address, reads a search that was
    submitted to a cluster. With --follow, shows the live view of `search` until the search ends, from any terminal.
    """
    if name is None:
        return _listed(storage_path, [flag for flag, given in (("--address", address), ("--follow", follow)) if given],
                       as_json)  # fmt: skip
    if follow:
        with signals_raised():
            return _followed(name, storage_path, address, plain, as_json)
    return _told(name, storage_path, address, as_json)


def _listed(storage_path: Path, beside: list[str], as_json: bool) -> int:
    """Lists the runs of a folder. beside: the flags that only a named search has."""
    import sys

    from tuner.cli.output import answer, answer_json, width
    from tuner.contract import InputError
    from tuner.report.runs import rows_of, runs_report

    if beside:
        raise InputError(f"{beside[0]} is about one search", where="NAME", expected="the name of a search")
    rows = rows_of(storage_path)
    if as_json:
        answer_json({"path": str(storage_path.resolve()), "runs": [row.to_dict() for row in rows]})
    elif rows:
        answer(runs_report(rows, width(sys.stdout)))
    else:
        from tuner.error_text import shown_path

        click.echo(f"no run is in {shown_path(storage_path.resolve())}; --storage-path names another folder")
    return 0


def _followed(name: str, storage_path: Path, address: str | None, plain: bool, as_json: bool) -> int:
    from tuner.cli.following import attach, follow_run
    from tuner.results.folder import open_run
    from tuner.results.ledger import UnreadableLine

    if address:
        from tuner.cluster.jobs import Cluster

        return attach(Cluster(address), name, plain, as_json)
    try:
        left = follow_run(open_run(storage_path, name), plain)
    except UnreadableLine:
        left = None  # what is wrong is told below, where the ledger is read once more
    return left if left is not None else _told(name, storage_path, address, as_json)


def _told(name: str, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Tells how the search stands now."""
    import sys
    import time

    from tuner.cli.output import answer, answer_json, cluster_place, labels_of_program, labels_of_run, place_of, width
    from tuner.report.live import frame
    from tuner.report.machine import status_json
    from tuner.report.summary import summary
    from tuner.results.folder import open_run
    from tuner.results.journal_check import journal_states, lost_end
    from tuner.results.lock import is_held
    from tuner.results.storage import is_written

    path: Path | str
    damaged = None
    idle = 0.0  # seconds since the last event; unknown for a cluster, whose clock is another
    if address:
        from tuner.cluster.jobs import Cluster
        from tuner.cluster.searches import read_search

        cluster = Cluster(address)
        found = read_search(cluster, name)
        record, job = found.record, found.job
        active, path = found.running is not None, job.path
        place, labels = cluster_place(name, job, cluster), labels_of_program(job.program)
    else:
        folder = open_run(storage_path, name)
        # The study before the ledger: a fact is in the ledger first, so all that the study has must be there.
        states = journal_states(folder.study)
        record = folder.record()
        damaged = lost_end(folder.study, states, record.trials.values())
        active = not record.finished and (is_held(folder.path) or is_written(folder.path))
        path = folder.path
        idle = max(0.0, time.time() - folder.ledger.stat().st_mtime)
        place, labels = place_of(folder.path), labels_of_run(folder)
    if not active:
        for trial in record.trials.values():  # the driver is gone, so no trial runs any more
            trial.interrupted = not trial.has_ended and not trial.parked
    if as_json:
        answer_json({**status_json(record, path), "active": active, "damaged": damaged and damaged.what})
        return 0
    columns = width(sys.stdout)
    if active:
        answer(frame(record, columns, 10_000, elapsed=record.wall_s + idle, labels=labels))
    else:
        answer(summary(record, place, columns, labels=labels, rows=10_000))
    if damaged is not None:
        click.echo(f"damaged: {damaged}", err=True)
    return 0
