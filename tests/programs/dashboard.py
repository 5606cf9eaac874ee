"""A server that answers as the dashboard of a Ray cluster does for one submitted search, and that faults can be given.

What a follower does about a real cluster is in tests/integration/test_submit.py; here are the faults that no cluster
has when it is asked to: a token that is not valid any more, a head that is gone and comes back without its jobs. Ray's
own code finds the last lines of a file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from aiohttp import web
from ray.dashboard.modules.log.log_agent import find_start_offset_last_n_lines_from_offset

from tests.programs.answering import free_port
from tuner.cluster.job_log import events_file
from tuner.cluster.payload import job_metadata
from tuner.results.ledger import Event

NODE = "ab" * 28


class Dashboard:
    """The server. folder: of Ray's logs. name: of the search, which is the job's id, too."""

    def __init__(self, folder: Path, name: str = "first") -> None:
        self._folder, self._name, self._port = folder, name, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.refuses: int | None = None
        """The status with which every request is refused."""
        self.asked: list[str] = []
        """The numbers of last lines that were asked for."""
        self.job: dict[str, Any] | None = {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": "RUNNING",
            "entrypoint": "tuner search",
            "metadata": job_metadata(name, "/shared/runs", "sft"),
            "driver_node_id": NODE,
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def events(self) -> Path:
        """The file of the job's events."""
        return self._folder / events_file(self._name)

    def write(self, events: Sequence[Event]) -> None:
        """Adds events to the file, as the job does."""
        with self.events.open("a", encoding="utf-8") as file:
            file.writelines(event.to_json() + "\n" for event in events)

    def end(self, status: str = "SUCCEEDED", exit_code: int | None = 0) -> None:
        """Ends the job."""
        assert self.job
        self.job |= {"status": status, "driver_exit_code": exit_code}

    def start(self) -> None:
        """Answers, on the same port as before."""
        begun = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(begun,), daemon=True)
        self._thread.start()
        assert begun.wait(20)

    def stop(self) -> None:
        """Answers nobody: the port is closed."""
        if self._loop and self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)

    def _serve(self, begun: threading.Event) -> None:
        self._loop = loop = asyncio.new_event_loop()
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._jobs)
        app.router.add_get("/api/jobs/{id}", self._one)
        app.router.add_get("/api/jobs/{id}/logs", self._log)
        app.router.add_get("/api/v0/logs/file", self._file)
        runner = web.AppRunner(app)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True).start())
        begun.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.refuses:
            return web.Response(status=self.refuses, text="Unauthorized")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, request: web.Request) -> web.Response:
        version = metadata.version("ray")
        return web.json_response({"version": "4", "ray_version": version, "ray_commit": "", "session_name": ""})

    async def _jobs(self, request: web.Request) -> web.Response:
        return web.json_response([self.job] if self.job else [])

    async def _one(self, request: web.Request) -> web.Response:
        if self.job is None or request.match_info["id"] != self._name:
            return web.Response(status=404, text=f"Job {request.match_info['id']} does not exist")
        return web.json_response(self.job)

    async def _log(self, request: web.Request) -> web.Response:
        file = self._folder / f"job-driver-{self._name}.log"
        return web.json_response({"logs": file.read_text() if file.exists() else ""})

    async def _file(self, request: web.Request) -> web.Response:
        asked = request.query["lines"]
        self.asked.append(asked)
        file = self._folder / request.query["filename"]
        if request.query["node_id"] != NODE:
            return web.Response(status=500, text="Agent for node id: x doesn't exist.")
        if not file.is_file():
            return web.Response(status=500, text=f"A file is not found at: {file}")
        with file.open("rb") as opened:
            start = 0 if asked == "-1" else find_start_offset_last_n_lines_from_offset(opened, -1, int(asked))
            opened.seek(start)
            return web.Response(body=opened.read(), content_type="text/plain")


@contextmanager
def serving(folder: Path) -> Iterator[Dashboard]:
    """A dashboard that answers."""
    dashboard = Dashboard(folder)
    dashboard.start()
    try:
        yield dashboard
    finally:
        dashboard.stop()
