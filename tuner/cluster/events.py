"""The events of a submitted search: a file beside the log of its job, among Ray's logs.

The job writes every event of its ledger there after it is on disk (`search --events-beside-log`); a job that resumes a
search writes the events of the earlier sessions first. The log itself is for people. Ray's dashboard serves the file,
so any machine that reaches the dashboard can fold the record of a search, also after its end.

The file is asked for again and again. The dashboard can stream it, too, but does not notice that a reader has gone
until the file grows: each one who left a search that has ended would keep one of the 100 requests that it answers at a
time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tuner.cluster.job_log import events_file
from tuner.cluster.jobs import Cluster, Job
from tuner.contract import InputError
from tuner.results.ledger import Event

LOOK_EVERY_S = 1.0
"""Seconds between two looks at the file."""
_FEW, _MORE = 32, 8
"""Lines that a look asks for, and the factor by which it asks for more where more are new."""


def event_of(line: str) -> Event | None:
    """The event on a line; None for a line that is none, as where the disk was full."""
    try:
        return Event.from_json(line)
    except (ValueError, TypeError, KeyError):
        return None


def told(cluster: Cluster, job: Job) -> list[Event]:
    """The events that a job has written so far. Raises InputError if the cluster does not give them."""
    if not job.node:
        return []
    lines = cluster.last_lines(job.node, events_file(job.submission_id))
    return [event for line in lines if (event := event_of(line))]


def follow(cluster: Cluster, submission_id: str) -> Iterator[Event]:
    """Yields the events of a job as they are written, until it ends.

    Raises InputError if the connection stays broken for 60 s, and at once if the cluster refuses the token or no longer
    knows the job.
    """
    tail, broken = _Tail(cluster, submission_id), 0.0
    while True:
        try:
            job = cluster.job(submission_id)  # before the file is read: a job that has ended has written all of it
            lines = tail.new(job.node) if job.node else []
        except (RuntimeError, OSError, InputError) as error:
            broken = cluster.bear(error, submission_id, broken)
        else:
            broken = 0.0
            for line in lines:
                if event := event_of(line):
                    yield event
            if job.over:
                return
        time.sleep(LOOK_EVERY_S)


class _Tail:
    """The lines that are added to a job's file of events."""

    def __init__(self, cluster: Cluster, submission_id: str) -> None:
        self._cluster, self._name = cluster, events_file(submission_id)
        self._seen, self._last = 0, ""

    def new(self, node: str) -> list[str]:
        """The complete lines since the last call."""
        found = self._since(node)
        self._seen += len(found)
        self._last = found[-1] if found else self._last
        return found

    def _since(self, node: str) -> list[str]:
        asked = _FEW if self._seen else -1
        while asked > 0:
            lines = self._cluster.last_lines(node, self._name, asked)
            if self._last in lines:  # each has its time and its checksum, so no two are alike
                return lines[lines.index(self._last) + 1 :]
            asked = asked * _MORE if len(lines) >= asked - 1 else -1  # one more may be incomplete
        return self._cluster.last_lines(node, self._name)[self._seen :]
