"""Reads searches that were submitted to a cluster, from the events of their jobs (`events.py`).

A job without any event has begun nothing, such as one that was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.cluster.events import told
from tuner.cluster.jobs import Cluster, Job
from tuner.contract import InputError
from tuner.error_text import all_near
from tuner.results.command_line import command_line
from tuner.results.ledger import Event
from tuner.results.records import SearchRecord

_NEAR = 5
"""The most names of other searches that a message names."""


@dataclass(frozen=True)
class Submitted:
    """A search that was submitted to a cluster, as its jobs show it."""

    record: SearchRecord
    """Folded from the events of `job`."""
    job: Job
    """The last job that has events; the last of all where none has any."""
    running: Job | None
    """The job that has not ended; None without one."""


def require_jobs(cluster: Cluster, name: str) -> list[Job]:
    """The jobs of the search `name`, oldest first. Raises InputError with the nearest names if there is none."""
    jobs = cluster.jobs(name)
    if jobs:
        return jobs
    names = cluster.names()
    near = all_near(name, names, most=_NEAR, cutoff=0.5) or names[-_NEAR:]
    raise InputError(
        f"no search {name!r} was submitted to this cluster",
        where=cluster.address,
        expected=f"one of: {', '.join(near)}" if near else "a search that `tuner submit` sent there",
        remedy="a search that was started on the cluster itself is read there, with --storage-path",
    )


def last_told(cluster: Cluster, jobs: Sequence[Job]) -> tuple[Job, list[Event]] | None:
    """The last of the jobs that has events, and these; None if none has any."""
    for job in reversed(jobs):
        if events := told(cluster, job):
            return job, events
    return None


def running(jobs: Sequence[Job]) -> Job | None:
    """The last of the jobs that has not ended."""
    return next((job for job in reversed(jobs) if not job.over), None)


def read_search(cluster: Cluster, name: str) -> Submitted:
    """The search `name`. Raises InputError if no search of that name was submitted, or if all of its jobs ended before
    the first event."""
    jobs = require_jobs(cluster, name)
    found, now = last_told(cluster, jobs), running(jobs)
    if found is None and now is None:
        raise InputError(
            f"the search {name!r} ended before it began",
            where=cluster.address,
            expected="\n  ".join(["what its job said last:", *cluster.log(jobs[-1].submission_id).splitlines()[-10:]]),
            remedy="submit it again",
        )
    job, events = found or (jobs[-1], [])
    record = SearchRecord.fold(events)
    record.name = record.name or name
    return Submitted(record, job, now)


def require_free(cluster: Cluster, name: str, *, resumes: bool) -> None:
    """Raises InputError if a job of the search `name` runs, or if one has run and this is no resume: a second search of
    that name would end at once, because the run folder is taken. resumes: whether the job to submit is a resume."""
    jobs = cluster.jobs(name)
    if (now := running(jobs)) is not None:
        raise InputError(
            f"the search {name!r} is running there already, as the job {now.submission_id}",
            where=cluster.address,
            remedy=f"{command_line('status', name, address=cluster.address)}, or choose another --name",
        )
    if resumes or (found := last_told(cluster, jobs)) is None:
        return
    again = command_line("submit", "--resume", name, address=cluster.address)
    raise InputError(
        f"the search {name!r} was submitted there before, as the job {found[0].submission_id}",
        where=cluster.address,
        remedy=f"go on with it ({again}), or choose another --name",
    )


def done(cluster: Cluster, name: str, num_trials: int | None, *, more: bool = False) -> SearchRecord | None:
    """The record of a search that a resume would have no trial to run in; None for any other. num_trials: the total
    that a resume is asked for; None for the one it had. more: whether it is given another budget."""
    found = last_told(cluster, cluster.jobs(name))
    record = SearchRecord.fold(found[1]) if found else SearchRecord()
    over = (record.is_done and num_trials in (None, record.num_trials)) or (bool(record.spent) and not more)
    return record if over else None
