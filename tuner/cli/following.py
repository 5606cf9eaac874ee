"""Shows a search that runs elsewhere until it ends: a job on a cluster, or the driver of another process here."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from tuner.cli.output import answer_json, cluster_place, labels_of_program, labels_of_run, tell, view, width

if TYPE_CHECKING:
    from tuner.cluster.jobs import Cluster, Job
    from tuner.results.folder import RunFolder

LOOK_EVERY_S = 0.25
"""Seconds between two looks at a ledger."""
PULL_EVERY_S = 2.0
"""Seconds between two copies of a run from its object store; its driver writes there as often."""
_LAST_LINES = 30
"""Lines that are shown of the log of a job that ended without a result."""
_REFUSED = 2
"""The exit code of a job whose search was refused. The events of a refused resume are those of the earlier sessions."""


def attach(cluster: Cluster, name: str, plain: bool, as_json: bool) -> int:
    """Follows a search that was submitted before, or shows how it ended. Returns the exit code as `follow_job` does."""
    from tuner.cluster.searches import last_told, require_jobs, running

    jobs = require_jobs(cluster, name)
    job = running(jobs)
    if job is None:
        told = last_told(cluster, jobs)
        job = told[0] if told else jobs[-1]
    return follow_job(cluster, name, job, plain, as_json)


def follow_job(cluster: Cluster, name: str, job: Job, plain: bool, as_json: bool) -> int:
    """Shows a submitted search from its beginning until its job ends or a signal comes; the search goes on after a
    signal. plain: lines instead of the live view.

    Returns the exit code: the search's, 0 after Ctrl-C, 128 + signal after another one.
    """
    from tuner.cluster.events import follow
    from tuner.report.machine import search_json
    from tuner.report.plain import PlainView
    from tuner.report.summary import summary
    from tuner.results.records import SearchRecord

    record, labels = SearchRecord(), labels_of_program(job.program)
    try:
        with ExitStack() as stack:
            shown = view(labels, "bounded" if plain else None, record)
            if not isinstance(shown, PlainView):
                stack.enter_context(shown)
            shown.say("waiting for the cluster to start the job")
            for event in follow(cluster, job.submission_id):
                shown.say("")
                shown(event)
    except KeyboardInterrupt as stop:
        return _detached(stop, name, cluster.address)
    job = cluster.job(job.submission_id)
    if not record.finished or job.exit_code == _REFUSED:
        return _unfinished(job, cluster)
    tell(summary(record, cluster_place(name, job, cluster), width(sys.stderr), labels=labels))
    if as_json:
        answer_json({**search_json(record, job.path), "address": cluster.address})
    return job.exit_code if job.exit_code is not None else 1


def follow_run(folder: RunFolder, plain: bool) -> int | None:
    """Shows a search that another process runs, here or at the same object store, until it ends.

    Returns the exit code after a signal, and None once the search has ended or nobody runs it.
    """
    from tuner.report.plain import PlainView
    from tuner.report.summary import headline
    from tuner.results.ledger import LedgerTail
    from tuner.results.records import SearchRecord

    tail = LedgerTail(folder.ledger)
    record = SearchRecord.fold(tail.new())
    runs = _Runs(folder)
    if record.finished or not runs.now():
        return None
    try:
        with ExitStack() as stack:
            shown = view(labels_of_run(folder), "bounded" if plain else None, record)
            if isinstance(shown, PlainView):
                tell([headline(record, width(sys.stderr))])
            else:
                stack.enter_context(shown)
            running = True
            while running and not record.finished:
                time.sleep(LOOK_EVERY_S)
                running = runs.now()  # before the ledger is read: a driver that has ended by now has written all of it
                for event in tail.new():
                    shown(event)
    except KeyboardInterrupt as stop:
        return _detached(stop, folder.name, storage=folder)
    return None


class _Runs:
    """Whether a driver writes a run. A run in an object store is copied here meanwhile."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._asked, self._written = folder, -PULL_EVERY_S, False

    def now(self) -> bool:
        from tuner.results.lock import is_held
        from tuner.results.storage import is_written, pull_run

        if is_held(self._folder.path):
            return True
        if time.monotonic() - self._asked >= PULL_EVERY_S:
            self._asked, self._written = time.monotonic(), is_written(self._folder.path)
            pull_run(self._folder.path)
        return self._written


def _detached(stop: KeyboardInterrupt, name: str, address: str = "", storage: RunFolder | None = None) -> int:
    """Says how to come back to a search that goes on, and returns the exit code after the signal."""
    from tuner.results.command_line import command_line, run_command_line

    def command(*words: str) -> str:
        return run_command_line(storage.path, *words) if storage else command_line(*words, address=address)

    number = getattr(stop, "number", signal.SIGINT)
    click.echo(f"\ndetached: {name} goes on", err=True)
    click.echo(f"watch     {command('status', name, '--follow')}", err=True)
    click.echo(f"end it    {command('stop', name)}", err=True)
    return 0 if number == signal.SIGINT else 128 + number


def _unfinished(job: Job, cluster: Cluster) -> int:
    """Shows the last lines of a job that ended without the search's own ending, and returns its exit code."""
    from tuner.report.lines import clean, line

    tell([line(text) for text in cluster.log(job.submission_id).splitlines()[-_LAST_LINES:]])
    click.echo(f"the job {job.submission_id} ended without a result: {job.status.lower()}", err=True)
    if job.message and job.exit_code is None:
        click.echo(clean(job.message.strip().splitlines()[0]), err=True)
    click.echo(f"its page  {cluster.address}/#/jobs/{quote(job.submission_id)}", err=True)
    return job.exit_code or 1
