"""Submits jobs through Ray's Jobs API, follows them, and reads them back.

What a job tells of a search is read in `events.py`.
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuner.addresses import go_past_proxies
from tuner.cluster.parcel import Parcel
from tuner.cluster.payload import Payload, submission_id, write_zip
from tuner.cluster.streaming import lines_of
from tuner.contract import InputError
from tuner.error_text import first_line
from tuner.surroundings import ray_token

if TYPE_CHECKING:
    import requests

ANSWERS_WITHIN_S = 10
"""Seconds that the job server has to say its version."""
ENDS_WITHIN_S = 10
"""Seconds that a short job has to end once it is told to."""
DOWNLOAD_S = 3600
"""Seconds that the transfer of one file may take."""
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_NO_FILE = ("A file is not found at", "Agent for node id")
"""Words with which Ray says that a node has no such file, or that there is no such node."""
_LOST_S = 60
"""Seconds for which a broken connection is tried again before this command gives up; the job goes on."""


@dataclass(frozen=True)
class Job:
    """A submitted search."""

    submission_id: str
    """Ray's id of the job."""
    status: str
    """Ray's word for its state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    metadata: dict[str, str]
    """What `payload.py` gave to the job: the search's name, its storage path and its program."""
    message: str = ""
    """Ray's own message about the state."""
    exit_code: int | None = None
    """The driver's exit code; None until it has ended, and if Ray does not know it."""
    node: str = ""
    """Ray's id of the node that the job's command runs on; "" before it has begun."""

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.status in _OVER

    @property
    def path(self) -> str:
        """The run folder on the cluster: a path or a URI."""
        return f"{self.metadata.get('storage_path', '')}/{self.metadata.get('tuner_search', '')}"

    @property
    def program(self) -> str:
        """The program as `run.program` names it."""
        return self.metadata.get("program", "sft")


class Cluster:
    """A cluster's Jobs API at `address`, the URL of its dashboard.

    Raises InputError if nothing answers there, if it refuses the token, or if its Ray is not this machine's version.
    """

    def __init__(self, address: str) -> None:
        self.address = address.strip().rstrip("/")
        host, port = _host_and_port(self.address)
        go_past_proxies(host)
        _require_listener(self.address, host, port)
        self.ray_version = self._ask_version()
        from ray.job_submission import JobSubmissionClient

        # Ray sets these loggers to INFO; they would print lines about packages and websockets.
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = JobSubmissionClient(self.address, headers=_headers())

    def jobs(self, name: str) -> list[Job]:
        """The jobs of the search `name`, oldest first."""
        found = [d for d in self._jobs() if (d.metadata or {}).get("tuner_search") == name]
        return [_job(details) for details in sorted(found, key=lambda d: d.start_time or 0)]

    def free_id(self, name: str) -> int:
        """The number, from 1, of the next job of the search `name`: the first whose id no job has. Another search may
        be named as the second job of this one is ("first.2")."""
        taken = {details.submission_id for details in self._jobs()}
        return next(number for number in itertools.count(1) if submission_id(name, number) not in taken)

    def names(self) -> list[str]:
        """The names of the searches that were submitted to this cluster."""
        found = {(details.metadata or {}).get("tuner_search") for details in self._jobs()}
        return sorted(name for name in found if name)

    def job(self, submission_id: str) -> Job:
        """The job with this id."""
        with self._token_is_good():
            return _job(self._client.get_job_info(submission_id))

    def submit(self, payload: Payload, parcel: Parcel) -> None:
        """Sends the parcel, then the job. Raises InputError if the cluster does not take them; there is no job then."""
        with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
            file = Path(folder, "parcel.zip")
            write_zip(parcel, file)
            try:
                self._client.submit_job(**payload.read_at(self.address).request(str(file)))
            except (RuntimeError, OSError, ValueError) as error:
                raise InputError(
                    f"the cluster does not take the job ({first_line(error)})",
                    where=self.address,
                    expected="a job server that takes it",
                    remedy="nothing was started; look at the cluster's dashboard",
                ) from error

    def run(self, payload: Payload, parcel: Parcel) -> dict[str, Any] | None:
        """Runs a short job to its end and returns the JSON object that it printed last, or None."""
        self.submit(payload, parcel)
        answer = None
        for line in self.follow(payload.submission_id):
            if line.startswith("{"):
                with suppress(ValueError):
                    answer = json.loads(line)
        if answer is not None:
            self._client.delete_job(payload.submission_id)
        return answer

    def stop(self, submission_id: str) -> None:
        """Ends a job as SIGTERM does; returns at once."""
        self._client.stop_job(submission_id)

    def remove(self, submission_id: str) -> None:
        """Ends a job if it runs, and takes it off the list of jobs; one that does not end in 10 s stays there."""
        deadline = time.monotonic() + ENDS_WITHIN_S
        try:
            if not self.job(submission_id).over:
                self.stop(submission_id)
            while not self.job(submission_id).over:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.2)
            self._client.delete_job(submission_id)
        except (RuntimeError, OSError, InputError):  # the cluster is gone, or somebody else was first
            return

    def download(self, node: str, name: str, to: Path, size: int) -> None:
        """Copies the file `name` among Ray's logs on a node to `to`, as far as `size` bytes. Raises InputError if it
        has fewer, and OSError if `to` cannot be written."""
        import requests

        left = size
        try:
            with self._served(node, name, timeout=str(DOWNLOAD_S)) as answer, to.open("wb") as file:
                for piece in answer.iter_content(2**20) if answer.ok else ():
                    left -= file.write(piece[:left])
                    if not left:
                        break
        except requests.RequestException as error:
            raise _incomplete(self.address, name, size - left, size, error) from error
        if left:
            raise _incomplete(self.address, name, size - left, size, f"HTTP {answer.status_code}")

    def last_lines(self, node: str, name: str, lines: int = -1) -> list[str]:
        """The last complete lines of the file `name` among Ray's logs on a node. lines: how many at most, -1 for all.

        No lines where there is no such file, or no such node any more. Raises InputError if the cluster does not give
        them.
        """
        import requests

        try:
            with self._served(node, name, lines=str(lines)) as answer:
                if answer.status_code in (401, 403):
                    raise _token_error(self.address, missing=answer.status_code == 401)
                if answer.status_code == 500 and any(word in answer.text for word in _NO_FILE):
                    return []
                answer.raise_for_status()
                whole = answer.content.rpartition(b"\n")[0]
        except requests.RequestException as error:
            told = f"the cluster does not give {name} ({first_line(error)})"
            raise InputError(told, where=self.address, remedy="try again") from error
        return whole.decode("utf-8", "replace").split("\n") if whole else []

    def _served(self, node: str, name: str, **more: str) -> requests.Response:
        """The answer to a request for a file among Ray's logs, whose body is not read yet."""
        import requests

        asked = {"node_id": node, "filename": name, "lines": "-1", **more}
        place = f"{self.address}/api/v0/logs/file"
        return requests.get(place, params=asked, headers=_headers(), stream=True, timeout=ANSWERS_WITHIN_S)

    def log(self, submission_id: str) -> str:
        """The log of a job so far."""
        with self._token_is_good():
            return str(self._client.get_job_logs(submission_id))

    def _jobs(self) -> list[Any]:
        with self._token_is_good():
            return list(self._client.list_jobs())

    @contextmanager
    def _token_is_good(self) -> Iterator[None]:
        """Raises InputError where the cluster refuses the token, which may have been good before."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise _token_error(self.address, missing=not ray_token()) from error

    def follow(self, submission_id: str) -> Generator[str, None, None]:
        """Yields the lines of a job's log as they are written, until the job ends.

        A broken connection is made again: the server then begins at the first line, and lines that were yielded are
        skipped. Raises InputError if it stays broken for 60 s, and at once if the cluster refuses the token or no
        longer knows the job.
        """
        from aiohttp import ClientError

        seen, broken = 0, 0.0  # lines yielded; the time at which the connection broke
        while True:
            received = 0
            try:
                for line in lines_of(lambda: self._client.tail_job_logs(submission_id)):
                    received += 1
                    if received > seen:
                        seen, broken = received, 0.0
                        yield line
                if self.job(submission_id).over:
                    # Ray ends the stream when the job ends, without the lines of the job's last second.
                    yield from self.log(submission_id).removesuffix("\n").split("\n")[seen:]
                    return
            except (RuntimeError, OSError, ClientError) as error:
                broken = self.bear(error, submission_id, broken)
            time.sleep(1)

    def bear(self, error: Exception, submission_id: str, since: float) -> float:
        """Lets an error of the connection pass, and returns the time at which the connection broke. since: that time;
        0 if it has just broken. Raises InputError after 60 s, and at once if it is of no use to try again."""
        self._require_known(submission_id)
        now = time.monotonic()
        if since and now - since > _LOST_S:
            raise InputError(
                f"the connection to the cluster was lost ({first_line(error)})",
                where=self.address,
                remedy="the search goes on without this terminal",
            ) from error
        return since or now

    def _require_known(self, submission_id: str) -> None:
        """Raises InputError if the cluster answers, and refuses the token or does not know the job."""
        import requests

        place = f"{self.address}/api/jobs/{submission_id}"
        try:
            code = requests.get(place, headers=_headers(), timeout=ANSWERS_WITHIN_S).status_code
        except requests.RequestException:
            return
        if code in (401, 403):
            raise _token_error(self.address, missing=code == 401)
        if code == 404:
            raise InputError(
                f"the cluster no longer knows the job {submission_id}: its head was started anew",
                where=self.address,
                expected="a head that runs for as long as the search does",
                remedy="the search ended with the head, and its run folder has what was reported; go on with it: "
                "submit --resume NAME --storage-path PATH",
            )

    def _ask_version(self) -> str:
        """The cluster's Ray version. Raises InputError if no Ray answers, if it refuses the token, or if its version is
        not this machine's."""
        import requests

        try:
            answer = requests.get(f"{self.address}/api/version", headers=_headers(), timeout=ANSWERS_WITHIN_S)
        except requests.RequestException as error:
            raise _no_cluster(
                self.address, f"{type(error).__name__}: what listens there does not speak HTTP"
            ) from error
        if answer.status_code in (401, 403):
            raise _token_error(self.address, missing=answer.status_code == 401)
        try:
            version = str(answer.json()["ray_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise _no_cluster(self.address, f"HTTP {answer.status_code}, and no Ray version") from error
        _require_version(self.address, version)
        return version


def _incomplete(address: str, name: str, got: int, size: int, why: object) -> InputError:
    return InputError(
        f"{name.partition('/')[2]} did not come complete: {got:,} of {size:,} bytes ({first_line(why)})",
        where=address,
        remedy="try again",
    )


def _headers() -> dict[str, str]:
    found = ray_token()
    return {"Authorization": f"Bearer {found}"} if found else {}


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"{address!r} is no address of a Ray dashboard",
            where="--address",
            expected="http://head:8265, where the dashboard and the job server answer",
            remedy="the address with port 6379 is for `search` on a machine of the cluster",
        )
    try:
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InputError(f"{address!r}: {error}", where="--address", expected="http://head:8265") from error


def _require_listener(address: str, host: str, port: int) -> None:
    """Raises InputError if nothing listens on the port; Ray's client would try for minutes."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _require_version(address: str, version: str) -> None:
    """Raises InputError if the cluster's Ray and this machine's differ in the major or minor version."""
    from packaging.version import Version

    here = metadata.version("ray")
    if Version(version).release[:2] != Version(here).release[:2]:
        raise InputError(
            f"the cluster runs Ray {version}, and this machine has {here}",
            where=address,
            expected=f"Ray {'.'.join(map(str, Version(here).release[:2]))} on both",
            remedy=f"install ray=={version} here, or run an image with Ray {here} there",
        )


def _no_cluster(address: str, error: object) -> InputError:
    return InputError(
        f"no Ray job server answers at {address} ({first_line(error)})",
        where="--address",
        expected="the address of a running cluster's dashboard, such as http://head:8265",
        remedy="look whether the cluster runs; ssh -L 8265:localhost:8265 HEAD brings its port to this machine",
    )


def _token_error(address: str, missing: bool) -> InputError:
    what = "asks for a token, and there is none here" if missing else "does not accept the token found here"
    return InputError(
        f"the cluster {what}",
        where=address,
        expected="the cluster's token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token",
        remedy="on the head node, `ray get-auth-token` of tuner's environment prints it",
    )


def _job(details: Any) -> Job:
    return Job(
        details.submission_id or "",
        str(details.status.value),
        dict(details.metadata or {}),
        details.message or "",
        details.driver_exit_code,
        details.driver_node_id or "",
    )
