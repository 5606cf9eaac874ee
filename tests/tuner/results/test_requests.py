"""Requests and answers as files, with a driver that is a thread of this process."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.faults import Count
from tuner.contract import InputError
from tuner.results.folder import RunFolder, create_run
from tuner.results.lock import RunLock
from tuner.results.requests import MOST_BYTES, MOST_NAMED, Inbox, Request, ask


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run(tmp_path, "first")


def cleared(folder: RunFolder, say: Callable[[str], None] = print) -> Inbox:
    inbox = Inbox(folder, say)
    inbox.clear()
    return inbox


@contextmanager
def driver(folder: RunFolder, act: Callable[[Inbox, Request], None]) -> Iterator[None]:
    """Within it, a thread holds the lock and answers requests."""
    lock, over, inbox = RunLock(folder.path), threading.Event(), cleared(folder)

    def loop() -> None:
        while not over.wait(0.01):
            for request in inbox.take():
                act(inbox, request)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        lock.release()


def test_a_request_is_answered_and_nothing_is_left(folder: RunFolder) -> None:
    def act(inbox: Inbox, request: Request) -> None:
        assert (request.action, request.values) == ("stop", {"trial": 7})
        inbox.answer(request.name, message="done")

    with driver(folder, act):
        assert ask(folder, "stop", {"trial": 7}) == "done"
    assert not list(folder.control.iterdir())


def test_a_refusal_reaches_who_asked_whole(folder: RunFolder) -> None:
    refusal = InputError("no such trial", where="first", expected="0 to 3", remedy="look at status")
    with (
        driver(folder, lambda inbox, request: inbox.answer(request.name, error=refusal)),
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
        while not inbox.take():
            time.sleep(0.01)
        lock.release()

    inbox = cleared(folder)
    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(InputError, match="no driver runs"):
        ask(folder, "pause", {}, wait_s=5)
    thread.join()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"trial": 7}',
        '{"action": "stop"',
        "x" * (MOST_BYTES + 1),
        "[" * 30_000,
        '{"action": ' * 9_000,
        '{"action": 7}',
    ],
)
def test_what_is_no_request_is_answered_and_harms_nobody(folder: RunFolder, text: str) -> None:
    inbox = cleared(folder)
    (folder.control / "a.json").write_text(text)
    (folder.control / "b.json").write_text('{"action": "pause"}')
    assert inbox.take() == [Request("b", "pause")]
    assert "cannot read the request" in json.loads((folder.control / "a.answer").read_text())["error"]["what"]


def test_what_an_earlier_driver_was_asked_is_not_done_by_the_next(folder: RunFolder) -> None:
    folder.control.mkdir()
    (folder.control / "a.json").write_text('{"action": "stop"}')
    assert cleared(folder).take() == []


def a_socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(place.parent):  # a path of it may have 107 bytes
        one.bind(place.name)


def a_link_to_nothing(place: Path) -> None:
    place.symlink_to("nowhere")


def a_link_to_itself(place: Path) -> None:
    place.symlink_to(place)


def a_link_to_a_request(place: Path) -> None:
    (place.parent.parent / "elsewhere").write_text('{"action": "stop"}')
    place.symlink_to(place.parent.parent / "elsewhere")


def a_device(place: Path) -> None:
    os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero


ODD = [Path.mkdir, os.mkfifo, a_socket, a_link_to_nothing, a_link_to_itself, a_link_to_a_request, a_device]


@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("name", ["a.json", "a.answer", "a.new", "b.answer"])
def test_an_odd_entry_stops_nobody_and_is_named_once(
    folder: RunFolder, make: Callable[[Path], None], name: str, fault: Count
) -> None:
    said: list[str] = []
    inbox = cleared(folder, said.append)
    (folder.control / "b.json").write_text('{"action": "pause"}')
    try:
        make(folder.control / name)
    except PermissionError:
        pytest.skip("no right to make such a thing")
    for name_of_request in ("b", "c", "d"):
        (folder.control / f"{name_of_request}.json").write_text('{"action": "pause"}')
        assert inbox.take() == [Request(name_of_request, "pause")]
        inbox.answer(name_of_request, message="done")
    assert json.loads((folder.control / "d.answer").read_text()) == {"message": "done"}
    assert len(said) <= 1 and all(f"control/{name} is no request" in one for one in said)
    assert said or name != "a.json"
    left = folder.control / name
    again: list[str] = []
    cleared(folder, again.append)  # of the resume
    assert not os.path.lexists(left) or (left.is_dir() and len(again) == 1)
    fault("an odd entry where requests are put")


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, a_link_to_nothing, a_link_to_itself, a_socket])
def test_a_folder_for_requests_that_is_none(folder: RunFolder, make: Callable[[Path], None], fault: Count) -> None:
    make(folder.control)
    said: list[str] = []
    inbox = cleared(folder, said.append)
    assert inbox.take() == [] and inbox.take() == []
    assert len(said) == 1 and said[0].startswith(f"no request is heard: {folder.control}")
    lock = RunLock(folder.path)
    with pytest.raises(InputError, match="the request cannot be written"):
        ask(folder, "stop", {})
    lock.release()
    fault("an odd entry where requests are put")


def test_a_link_in_place_of_the_folder_empties_nothing(folder: RunFolder, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a.json").write_text('{"action": "stop"}')
    folder.control.symlink_to(precious)
    said: list[str] = []
    assert cleared(folder, said.append).take() == [] and len(said) == 1
    assert (precious / "a.json").exists()


def test_names_that_are_none_are_named_readably(folder: RunFolder, fault: Count) -> None:
    said: list[str] = []
    inbox = cleared(folder, said.append)
    for name in (b"a\nb.json", b"\xff\xfe.json", b"-.json", b"x" * 250 + b".json", b".json", "\u202e.json".encode()):
        (folder.control / os.fsdecode(name)).write_text('{"action": "stop"}')
    assert inbox.take() == [] and inbox.take() == []
    assert len(said) == 6 and all(one.isprintable() and one.isascii() and len(one) < 200 for one in said)
    fault("an odd entry where requests are put", 6)


def test_a_sparse_file_of_a_gigabyte_is_not_read(folder: RunFolder, fault: Count) -> None:
    inbox = cleared(folder)
    with (folder.control / "a.json").open("wb") as file:
        file.truncate(1 << 30)
    assert inbox.take() == []
    assert "1,073,741,824 bytes" in (folder.control / "a.answer").read_text()
    fault("an odd entry where requests are put")


def test_thousands_of_entries_hide_no_request(folder: RunFolder, fault: Count) -> None:
    said: list[str] = []
    inbox = cleared(folder, said.append)
    for number in range(3000):
        (folder.control / f"{number}.txt").touch()
        (folder.control / f"{number}.json").mkdir()
    for number in range(500):
        (folder.control / f"junk{number}.json").touch()
    (folder.control / "mine.json").write_text('{"action": "pause"}')
    taken = [request for _ in range(3) for request in inbox.take()]
    assert taken == [Request("mine", "pause")]
    assert len(said) == MOST_NAMED + 1
    began = time.monotonic()
    assert inbox.take() == []
    assert time.monotonic() - began < 0.2, "a turn of the driver's loop"
    fault("an odd entry where requests are put", 6500)


def test_a_request_that_cannot_be_taken_away_is_not_carried_out_again_and_again(folder: RunFolder) -> None:
    said: list[str] = []
    inbox = cleared(folder, said.append)
    place = folder.control / "a.json"
    place.write_text('{"action": "stop"}')
    if subprocess.run(["chattr", "+i", place], capture_output=True).returncode:
        pytest.skip("no file system with immutable files")
    try:
        assert inbox.take() == [] and inbox.take() == []
        assert len(said) == 1 and "Operation not permitted" in said[0]
    finally:
        subprocess.run(["chattr", "-i", place], check=True)


@pytest.mark.parametrize("make", ODD)
def test_an_odd_entry_in_place_of_the_answer(folder: RunFolder, make: Callable[[Path], None]) -> None:
    def act(inbox: Inbox, request: Request) -> None:
        make(folder.control / f"{request.name}.answer")

    began = time.monotonic()
    with driver(folder, act), pytest.raises(InputError):
        ask(folder, "stop", {}, wait_s=1)
    assert time.monotonic() - began < 10
