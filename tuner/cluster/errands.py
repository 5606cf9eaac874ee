"""Has a cluster do what needs its run folder: requests to a driver, and files that are fetched.

An errand is a short Ray job (`errand.py`): all that this machine needs is the address of the dashboard and the token.
Files come through the dashboard as well, which serves what lies among Ray's logs.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tuner.cluster.events import told
from tuner.cluster.jobs import Cluster, Job
from tuner.cluster.parcel import pack_code
from tuner.cluster.payload import make_errand
from tuner.cluster.searches import require_jobs, running
from tuner.contract import InputError
from tuner.disks import is_full
from tuner.results.command_line import command_line
from tuner.results.records import SearchRecord

_LAST_LINES = 10
"""Lines that are shown of the log of an errand without an answer."""


def ask(cluster: Cluster, name: str, action: str, values: Mapping[str, Any]) -> str:
    """Asks the driver of a search that was submitted to the cluster, and returns its answer. A search that is to stop
    before its first trial is ended with its job.

    Raises InputError if no job runs the search, if the driver refuses, or if it does not answer.
    """
    job = running(require_jobs(cluster, name))
    if job is None:
        raise InputError(
            f"no job runs the search {name!r}",
            where=cluster.address,
            expected="a running search",
            remedy=f"go on with it: {command_line('submit', '--resume', name, address=cluster.address)}",
        )
    if action == "stop" and values.get("trial") is None and not SearchRecord.fold(told(cluster, job)).trials:
        cluster.stop(job.submission_id)
        return f"{name} ends before its first trial: nothing is kept"
    with _errand(cluster, job, duty="ask", action=action, values=dict(values)) as (_, answer):
        return str(answer["message"])


def fetch(cluster: Cluster, name: str, duty: str, to: Path) -> None:
    """Copies files of a search's run folder on the cluster into the folder `to`, where they keep their places.

    duty: "best" for the winner, "boards" for what the dashboards show. Each file is compared with its size on the
    cluster. Raises InputError if the search has no such files, or if one does not come complete.
    """
    jobs = require_jobs(cluster, name)
    with _errand(cluster, jobs[-1], duty=duty) as (errand, answer):
        for file, size in answer["files"].items():
            place = PurePosixPath(file)
            if place.is_absolute() or ".." in place.parts:
                raise InputError(f"the cluster names a file outside the run folder: {file!r}", where=cluster.address)
            try:
                (to / place).parent.mkdir(parents=True, exist_ok=True)
                cluster.download(errand.node, f"{answer['place']}/{file}", to / place, size)
            except OSError as error:
                remedy = "make room, or give another folder" if is_full(error) else ""
                why = f"cannot write here ({error.strerror or error})"
                raise InputError(why, where=str(to / place), remedy=remedy) from error


@contextmanager
def _errand(cluster: Cluster, job: Job, *, duty: str, **order: Any) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Runs an errand about the search of `job`. Yields the errand's own job and its answer; the errand ends with the
    block. Raises the InputError that it answers."""
    wanted = {"duty": duty, "name": job.metadata["tuner_search"], "storage_path": job.metadata["storage_path"], **order}
    mark = f"{int(time.time())}-{secrets.token_hex(3)}"
    payload = make_errand(order.get("action", "fetch"), [json.dumps(wanted)], mark, module="tuner.cluster.errand")
    cluster.submit(payload, pack_code())
    try:
        answer, said = None, deque[str](maxlen=_LAST_LINES)
        with closing(cluster.follow(payload.submission_id)) as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line) if line.startswith("{") else None
                if answer is not None:
                    break
                said.append(line)
        if answer is None:
            raise InputError(
                f"the job {payload.submission_id} on the cluster gave no answer",
                where=cluster.address,
                expected="\n  ".join(["an answer; what it said last:", *said]),
            )
        if refused := answer.get("error"):
            parts = {part: str(refused.get(part, "")) for part in ("what", "where", "expected", "remedy")}
            raise InputError(parts.pop("what"), **parts)
        yield cluster.job(payload.submission_id), answer
    finally:
        cluster.remove(payload.submission_id)
