"""The process that ends whatever a search has started once the driver is gone, however the driver ended.

Run as `python -I reaper.py FOLDER DRIVER`, with a pipe from the driver as its standard input and the driver's process
id. Every session leader that the driver starts writes its process id into the pipe; the end of the pipe means that the
driver has ended, by kill -9 as well. The reaper then kills every process of those sessions, and removes FOLDER.

A session holds its leader and all descendants that start none of their own: workers, their process groups, and children
that a trial's program has forked. The reaper imports the standard library alone: it takes 10 MB and starts in 30 ms.
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
"""Seconds between two looks at whether the driver is still the parent: a child of the driver may keep the pipe open."""
ENDS_WITHIN_S = 20.0
"""Seconds for killed processes to end; one that waits for a device or a disk does not end at once."""


class Sessions:
    """The sessions to end, each with its leader's process id and start time, because the system reuses ids."""

    def __init__(self) -> None:
        self._leaders: dict[int, str | None] = {}

    def add(self, leader: int) -> None:
        """Notes a leader, also one that has ended by now: others may run in its session."""
        found = _stat(leader)
        self._leaders[leader] = found[1] if found is not None else None

    def kill(self) -> bool:
        """Kills every process of the sessions; returns whether there was one."""
        found = False
        for process, session in list(_processes()):
            if session not in self._leaders or not self._is_ours(session):
                continue
            found = True
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        return found

    def _is_ours(self, session: int) -> bool:
        """Whether a session is the one that was noted, and its id was not reused: the system keeps the id of a session
        as long as it has a process, with or without its leader."""
        leader = _stat(session)
        return leader is None or leader[1] == self._leaders[session]


def _processes() -> Iterator[tuple[int, int]]:
    """Process id and session of every process, without zombies."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and (found := _stat(int(name))) is not None and found[2] not in "ZX":
            yield int(name), found[0]


def _stat(process: int) -> tuple[int, str, str] | None:
    """Session, start time (in clock ticks since boot) and state of a process; None where it is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    words = told[told.rindex(b")") + 2 :].split()  # the name stands before that, and may hold any character
    return int(words[3]), words[19].decode(), words[0].decode()


def _listen(driver: int, sessions: Sessions) -> None:
    """Notes the leaders' process ids until the driver has ended."""
    rest = b""
    while True:
        lives = os.getppid() == driver
        if not select.select([0], [], [], LOOK_EVERY_S if lives else 0)[0]:
            if lives:
                continue
            return  # the driver is gone, and all that it wrote has been read
        told = os.read(0, 4096)
        if not told:
            return
        *lines, rest = (rest + told).split(b"\n")
        for line in lines:
            sessions.add(int(line))


def ignore_signals() -> None:
    """Ignores signals, in the new process before it executes the reaper: a batch system signals every process of a
    job."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main(folder: str, driver: int) -> None:
    """Waits for the end of the driver, kills what it had started, and removes `folder`. driver: its process id."""
    sessions = Sessions()
    _listen(driver, sessions)
    deadline = time.monotonic() + ENDS_WITHIN_S
    while sessions.kill() and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
