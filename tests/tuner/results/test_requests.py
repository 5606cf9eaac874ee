"""Requests and answers as files, with a driver that is a thread of this process."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuner.contract import InputError
from tuner.results.folder import RunFolder, create_run
from tuner.results.lock import RunLock
from tuner.results.requests import MOST_BYTES, Request, answer, ask, clear, take


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run(tmp_path, "first")


@contextmanager
def driver(folder: RunFolder, act: Callable[[Request], None]) -> Iterator[None]:
    """Holds the lock and answers until the block is left."""
    lock, over = RunLock(folder.path), threading.Event()
    clear(folder)

    def loop() -> None:
        while not over.wait(0.01):
            for request in take(folder):
                act(request)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        lock.release()


def test_a_request_is_answered_and_nothing_is_left(folder: RunFolder) -> None:
    def act(request: Request) -> None:
        assert (request.action, request.values) == ("stop", {"trial": 7})
        answer(folder, request.name, message="done")

    with driver(folder, act):
        assert ask(folder, "stop", {"trial": 7}) == "done"
    assert not list(folder.control.iterdir())


def test_a_refusal_reaches_who_asked_whole(folder: RunFolder) -> None:
    refusal = InputError("no such trial", where="first", expected="0 to 3", remedy="look at status")
    with (
        driver(folder, lambda request: answer(folder, request.name, error=refusal)),
        pytest.raises(InputError) as caught,
    ):
        ask(folder, "stop", {"trial": 7})
    assert str(caught.value) == str(refusal)


def test_without_a_driver_it_is_said_at_once(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="no driver runs the search 'first'") as caught:
        ask(folder, "pause", {})
    where = shlex.quote(str(folder.path.parent))
    assert caught.value.remedy == f"go on with it: python -m tuner search --resume first --storage-path {where}"
    assert not folder.control.exists()


def test_a_silent_driver_gets_the_request_taken_back(folder: RunFolder) -> None:
    lock = RunLock(folder.path)
    with pytest.raises(InputError, match="has not answered"):
        ask(folder, "pause", {}, wait_s=0.2)
    assert not list(folder.control.iterdir())
    lock.release()


def test_a_driver_that_dies_over_a_request(folder: RunFolder) -> None:
    lock = RunLock(folder.path)

    def die() -> None:
        while not take(folder):
            time.sleep(0.01)
        lock.release()

    clear(folder)
    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(InputError, match="no driver runs"):
        ask(folder, "pause", {}, wait_s=5)
    thread.join()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"trial": 7}', '{"action": "stop"', "x" * (MOST_BYTES + 1)])
def test_what_is_no_request_is_answered_and_harms_nobody(folder: RunFolder, text: str) -> None:
    clear(folder)
    (folder.control / "a.json").write_text(text)
    (folder.control / "b.json").write_text('{"action": "pause"}')
    assert take(folder) == [Request("b", "pause")]
    assert "cannot read the request" in json.loads((folder.control / "a.answer").read_text())["error"]["what"]


def test_what_an_earlier_driver_was_asked_is_not_done_by_the_next(folder: RunFolder) -> None:
    folder.control.mkdir()
    (folder.control / "a.json").write_text('{"action": "stop"}')
    clear(folder)
    assert take(folder) == []
