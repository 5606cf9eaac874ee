"""Dashboards that refuse or cannot answer a request: the browser is told, and nothing is printed on the terminal."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.runs import finished_run
from tuner.results.folder import RunFolder
from tuner.watch.boards import optuna_board, tensorboard


def ask(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    wish = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(wish, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def hang_up(url: str, request: str) -> None:
    """Sends a request, and closes the connection before the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(f"{request}\r\nHost: x\r\n\r\n".encode())


def test_what_would_change_a_study_is_refused_and_only_the_browser_hears(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = RunFolder(finished_run(tmp_path))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="first", storage=JournalStorage(JournalFileBackend(str(folder.study))))
    journal = folder.study.read_bytes()
    with optuna_board(folder) as url:
        capfd.readouterr()
        origin = url.removesuffix("/dashboard")
        assert ask(f"{origin}/api/studies")[0] == 200
        wishes = [("DELETE", "/api/studies/0", None), ("POST", "/api/studies", b'{"study_name": "x"}')]
        wishes += [("PUT", "/api/studies/0/note", b'{"body": "x", "version": 1}'), ("POST", "/api/studies", b"{")]
        for method, path, body in wishes:
            status, told = ask(origin + path, method, body)
            assert status == 403 and "read-only" in json.loads(told)["reason"]
        assert ask(f"{origin}/api/studies/none")[0] >= 400
        with folder.study.open("ab") as file:
            file.write(b"no JSON\n{}\n")
        assert ask(f"{origin}/api/studies")[0] == 500
        folder.study.write_bytes(journal)
        for _ in range(5):
            hang_up(url, "GET /api/studies HTTP/1.1")
        hang_up(url, "no HTTP")
        time.sleep(0.3)
    assert capfd.readouterr() == ("", "")
    assert folder.study.read_bytes() == journal


def test_tensorboard_says_nothing_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.tensorboard.mkdir()
    with tensorboard(folder) as url:
        capfd.readouterr()
        assert ask(f"{url}/data/plugin/scalars/scalars?run=no&tag=no")[0] >= 400
        assert ask(f"{url}/data/plugin/hparams/session_groups", "POST", b"no JSON")[0] >= 400
        for _ in range(5):
            hang_up(url, "GET /data/environment HTTP/1.1")
        hang_up(url, "no HTTP")
        time.sleep(0.3)
    assert capfd.readouterr() == ("", "")
