"""The process that ends whatever a search has started, once the search itself is gone, however it went.

Run as `python -I reaper.py FOLDER`, with a pipe from the driver as its standard input. The driver writes the process id
of every session leader that it starts; the end of the pipe means that the driver has ended, by kill -9 as well. The
reaper then kills every process of those sessions, and removes FOLDER.

A session holds all that its leader started, and what that started in turn: workers, their process groups, and children
that a trial's program has forked. It imports the standard library alone, so that it costs 10 MB and starts in 30 ms.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOOK_EVERY_S = 1.0
"""At whether the driver is still the parent: a child that the driver forked may keep the pipe open."""
ENDS_WITHIN_S = 20.0
"""For processes to go that were killed; one that waits for a device or a disk takes its time."""


class Sessions:
    """The sessions to end: each leader's process id and when it started, because ids are given out again."""

    def __init__(self) -> None:
        self._leaders: dict[int, str | None] = {}

    def add(self, leader: int) -> None:
        """Notes a leader. One that has ended by now may have left others in its session."""
        found = _look(leader)
        self._leaders[leader] = found[1] if found is not None else None

    def kill(self) -> bool:
        """Kills every process of the sessions that is there; whether there was one."""
        found = False
        for process, session in list(_processes()):
            if session not in self._leaders or not self._is_ours(session):
                continue
            found = True
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        return found

    def _is_ours(self, session: int) -> bool:
        """A session whose leader is gone keeps its number for as long as it has a process."""
        leader = _look(session)
        return leader is None or leader[1] == self._leaders[session]


def _processes() -> Iterator[tuple[int, int]]:
    """Process id and session of everything that runs; what has ended and waits for its parent does not count."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and (found := _look(int(name))) is not None and found[2] not in "ZX":
            yield int(name), found[0]


def _look(process: int) -> tuple[int, str, str] | None:
    """Session, time of its start, and state of a process; None where it is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    words = told[told.rindex(b")") + 2 :].split()  # its name comes before, and may hold anything
    return int(words[3]), words[19].decode(), words[0].decode()


def _listen(driver: int, sessions: Sessions) -> None:
    """Takes the leaders' process ids down until the driver has ended."""
    rest = b""
    while True:
        lives = os.getppid() == driver
        if not select.select([0], [], [], LOOK_EVERY_S if lives else 0)[0]:
            if lives:
                continue
            return  # what it had told is read by now
        told = os.read(0, 4096)
        if not told:
            return
        *lines, rest = (rest + told).split(b"\n")
        for line in lines:
            sessions.add(int(line))


def ignore_signals() -> None:
    """For the new process before it becomes the reaper: a batch system tells every process of a job, at any moment."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main(folder: str, driver: int) -> None:
    """Waits for the end of the driver, and clears up."""
    sessions = Sessions()
    _listen(driver, sessions)
    deadline = time.monotonic() + ENDS_WITHIN_S
    while sessions.kill() and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
