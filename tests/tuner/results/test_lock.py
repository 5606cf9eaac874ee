"""One driver for a run folder, and queries of its lock that do not take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuner.contract import InputError
from tuner.results.lock import NAME, RunLock, is_held

STRANGER = 54321
"""A uid that no user has."""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A run folder in which every user may write; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="tuner-lock-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def as_stranger(call: Callable[[], object]) -> int:
    """Calls a function in a process of another user: 0 if it gives a true value, 1 if not, 2 if it raises
    InputError."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    child = os.fork()
    if not child:
        code = 3
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            code = 0 if call() else 1
        except InputError:
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_second_driver_is_refused(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tuner.contract import InputError\n"
        "from tuner.results.lock import RunLock\n"
        f"try: RunLock(Path({str(tmp_path)!r}))\n"
        "except InputError as error: print(error); sys.exit(2)"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode == 2 and f"another driver (process {os.getpid()} on " in second.stdout
    lock.release()
    RunLock(tmp_path).release()


def test_a_look_says_who_holds_and_takes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path), "there is none"
    lock = RunLock(tmp_path)
    assert is_held(tmp_path) and is_held(tmp_path)
    lock.release()
    assert not is_held(tmp_path)


def test_no_look_turns_a_driver_away(tmp_path: Path) -> None:
    """Three people run `status` as fast as they can while drivers come and go."""
    RunLock(tmp_path).release()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            is_held(tmp_path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            RunLock(tmp_path).release()
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_it_goes_with_its_process(tmp_path: Path) -> None:
    code = f"import time; from pathlib import Path; from tuner.results.lock import RunLock; lock = RunLock(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"  # noqa: E501
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n" and is_held(tmp_path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not is_held(tmp_path)
    RunLock(tmp_path).release()


def test_nobody_else_can_open_it(shared: Path) -> None:
    """Not even a file that an earlier version left open to others."""
    (shared / NAME).touch(0o644)
    lock = RunLock(shared)
    assert (shared / NAME).stat().st_mode & 0o777 == 0o600
    assert as_stranger(lambda: os.open(shared / NAME, os.O_RDONLY)) == 3
    lock.release()


def test_another_user_still_sees_whether_a_driver_runs(shared: Path) -> None:
    lock = RunLock(shared)
    assert as_stranger(lambda: is_held(shared)) == 0
    lock.release()
    assert as_stranger(lambda: is_held(shared)) == 1


def test_a_lock_of_another_user_is_refused_in_words(shared: Path) -> None:
    """He may hold it or not: the same words, and no claim that a driver runs."""
    assert as_stranger(lambda: RunLock(shared)) == 0
    with pytest.raises(InputError, match=rf"belongs to another user \(uid {STRANGER}\)") as caught:
        RunLock(shared)
    assert NAME in caught.value.where and "delete" in caught.value.remedy


def test_a_lock_of_ours_is_refused_to_another_user(shared: Path) -> None:
    RunLock(shared).release()
    assert as_stranger(lambda: RunLock(shared)) == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda place: place.symlink_to(place)])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / NAME)
    assert not is_held(tmp_path)
    with pytest.raises(InputError) as caught:
        RunLock(tmp_path)
    assert NAME in caught.value.where
