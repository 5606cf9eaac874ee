"""`tuner status`: how a search stands, read from its ledger."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import json_option, storage_option


@click.command("status", short_help="How a search stands or ended.")
@click.argument("name")
@storage_option
@json_option
def command(name: str, storage_path: Path, as_json: bool) -> int:
    """How the search NAME stands, or how it ended: every trial, the best so far, what to do next.

    Reads the ledger and nothing else, so it is safe while the search runs.
    """
    import sys
    import time

    from tuner.cli.output import answer, answer_json, labels_of_run, place_of, width
    from tuner.report.live import frame
    from tuner.report.machine import status_json
    from tuner.report.summary import summary
    from tuner.results.folder import open_run
    from tuner.results.requests import is_held

    folder = open_run(storage_path, name)
    record = folder.record()
    active = not record.finished and is_held(folder.path)
    if not active:
        for trial in record.trials.values():  # the driver is gone: nothing of this is running any more
            trial.interrupted = not trial.has_ended
    if as_json:
        answer_json({**status_json(record, folder.path), "active": active})
        return 0
    columns, labels = width(sys.stdout), labels_of_run(folder)
    if active:
        elapsed = record.wall_s + max(0.0, time.time() - (record.updated or time.time()))
        answer(frame(record, columns, 10_000, elapsed=elapsed, labels=labels))
    else:
        answer(summary(record, place_of(folder.path), columns, labels=labels, rows=10_000))
    return 0
