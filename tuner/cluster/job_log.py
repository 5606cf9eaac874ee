"""The log of a Ray job, and the file beside it that has the events of a search: where the job itself finds them."""

from __future__ import annotations

from pathlib import Path

from tuner.contract import InputError

_HEAD, _TAIL = "job-driver-", ".log"
"""What Ray puts around the id of a job in the name of its log."""


def log_of_this_job() -> Path:
    """The log of the Ray job that this process is: Ray writes the output of a job into its folder of logs. Raises
    InputError elsewhere."""
    log = Path("/proc/self/fd/1").readlink()
    if not (log.name.startswith(_HEAD) and log.name.endswith(_TAIL)):
        raise InputError(f"{log} is no log of a Ray job", expected="to run as a job of the cluster")
    return log


def events_of_this_job() -> Path:
    """The file for the events of the Ray job that this process is. Raises InputError elsewhere."""
    log = log_of_this_job()
    return log.with_name(events_file(log.name.removeprefix(_HEAD).removesuffix(_TAIL)))


def events_file(submission_id: str) -> str:
    """The name of the file that has the events of a job, beside its log."""
    return f"{_HEAD}{submission_id}.events.jsonl"
