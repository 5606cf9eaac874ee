"""A hub on this machine: serves folders by the part of the Hugging Face hub's API that loading needs.

`python -m tests.programs.hub ROOT PORT LOG` serves ROOT/<models|datasets>/<org>/<name>/<commit>/; `refs.json` beside
the commits names branches and tags; with a file `gated`, all requests for files are refused. Every request is a line of
LOG.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Refusal(Exception):
    """An answer other than 200: the status, and the hub's error code."""


class Handler(BaseHTTPRequestHandler):
    root: Path
    log: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        with self.log.open("a") as log:
            log.write(f"{self.command} {self.path}\n")

    def _answer(self, body: bool) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        try:
            if found := _API.fullmatch(path):
                kind, name, what, revision, rest = found.groups()
                repository, commit = self._find(kind, name, revision or "main")
                if what == "tree":
                    told: Any = [entry(repository / commit, file) for file in files(repository / commit)]
                elif what == "paths-info":
                    named = parse_qs(asked.decode()).get("paths", []) if b"=" in asked else json.loads(asked)["paths"]
                    told = [entry(repository / commit, file) for file in files(repository / commit) if file in named]
                else:
                    told = {"id": name, "sha": commit, "private": False, "gated": False, "tags": [],
                            "siblings": [{"rfilename": file} for file in files(repository / commit)]}  # fmt: skip
                return self._send(json.dumps(told).encode(), body, {"Content-Type": "application/json"})
            if found := _FILE.fullmatch(path):
                dataset, name, revision, rest = found.groups()
                repository, commit = self._find("datasets" if dataset else "models", name, revision)
                if (repository / "gated").exists():
                    raise Refusal(403, "GatedRepo")
                file = repository / commit / rest
                if not file.is_file():
                    raise Refusal(404, "EntryNotFound")
                content = file.read_bytes()
                about = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
                return self._send(content, body, about)
            raise Refusal(404, "RepoNotFound")
        except Refusal as refusal:
            status, word = refusal.args
            self._send(b"", body, {"X-Error-Code": word, "X-Error-Message": word}, status)

    def _find(self, kind: str, name: str, revision: str) -> tuple[Path, str]:
        repository = self.root / kind / name
        if not repository.is_dir():
            raise Refusal(401, "RepoNotFound")  # the hub does not tell a missing one from a private one
        commit = json.loads((repository / "refs.json").read_text()).get(revision, revision)
        if not (repository / commit).is_dir():
            raise Refusal(404, "RevisionNotFound")
        return repository, commit

    def _send(self, content: bytes, body: bool, headers: dict[str, str], status: int = 200) -> None:
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        content = content[int(start[1]) :] if start else content
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def entry(folder: Path, file: str) -> dict[str, Any]:
    content = (folder / file).read_bytes()
    return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@dataclass(frozen=True)
class Hub:
    """A running hub. url: the value of HF_ENDPOINT."""

    root: Path
    url: str
    log: Path

    def commit(self, kind: str, name: str, commit: str, *refs: str) -> Path:
        """Makes a new commit and moves the refs to it; gives its folder."""
        folder = self.root / kind / name / commit
        folder.mkdir(parents=True)
        named = folder.parent / "refs.json"
        known = json.loads(named.read_text()) if named.exists() else {}
        named.write_text(json.dumps(known | dict.fromkeys(refs, commit)))
        return folder

    def requests(self) -> list[str]:
        """All requests so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Within it, a hub runs in a process of its own."""
    (root / "repositories").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hub = Hub(root / "repositories", f"http://127.0.0.1:{port}", root / "requests.log")
    process = subprocess.Popen([sys.executable, __file__, str(hub.root), str(port), str(hub.log)])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield hub
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    Handler.root, Handler.log = Path(sys.argv[1]), Path(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
