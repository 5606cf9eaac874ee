"""Standard streams that lead to real pipes, terminals and full disks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pty
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from tests.tuner.report import searches
from tuner import streams
from tuner.report.live import LiveView
from tuner.results.records import SearchRecord
from tuner.streams import OutputError, Printed, Shown
from tuner.watch.trackers import Tracking

ROOT = Path(__file__).parents[2]
LINE = "x" * 99 + "\n"


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STILL_S", 0.3)


@pytest.fixture
def pipe() -> Iterator[tuple[int, IO[str]]]:
    """A pipe: the descriptor of its reading end, and its writing end as a file."""
    read, write = os.pipe()
    stream = os.fdopen(write, "w", encoding="utf-8")
    yield read, stream
    for close in (lambda: os.close(read), stream.close):
        with suppress(OSError):  # the test has closed it
            close()


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_reader_that_goes_away_is_noted_once(pipe: tuple[int, IO[str]], caplog: pytest.LogCaptureFixture) -> None:
    read, stream = pipe
    shown = Shown(stream, "standard error")
    os.close(read)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            shown.write(LINE)
            time.sleep(0.001)
        shown.drain()
        print("to nobody", file=shown, flush=True)
    assert [r.getMessage() for r in caplog.records] == [
        "standard error cannot be written any more (Broken pipe): nothing more is shown there"
    ]


def test_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as stream, caplog.at_level(logging.WARNING):
        shown = Shown(stream, "standard output", no_gaps=True)
        shown.write(LINE)
        shown.drain()
        with pytest.raises(OutputError) as caught:
            Printed(stream, "standard output").write(LINE)
    assert str(caught.value) == "standard output cannot be written (No space left on device)"
    assert not caught.value.reader_gone
    assert "No space left on device" in caplog.text


def test_a_printed_output_without_a_reader(pipe: tuple[int, IO[str]]) -> None:
    read, stream = pipe
    os.close(read)
    with pytest.raises(OutputError) as caught:
        Printed(stream, "standard output").write(LINE)
    assert caught.value.reader_gone and not isinstance(caught.value, OSError)


def test_a_reader_that_does_not_read_costs_nothing(pipe: tuple[int, IO[str]]) -> None:
    _, stream = pipe
    shown = Shown(stream, "standard error")
    assert timed(lambda: [shown.write(LINE) for _ in range(20_000)]) < 2, "2 MB into a pipe of 64 KiB"
    assert 0.25 < timed(shown.drain) < 3


def test_a_slow_reader_gets_everything(pipe: tuple[int, IO[str]]) -> None:
    read, stream = pipe
    got: list[bytes] = []

    def reader() -> None:
        while sum(map(len, got)) < 200_000:
            time.sleep(0.01)
            got.append(os.read(read, 4096))

    thread = threading.Thread(target=reader)
    thread.start()
    shown = Shown(stream, "standard output", no_gaps=True)
    for number in range(2000):
        shown.write(f"{number:099}\n")
    shown.drain()
    thread.join()
    assert b"".join(got).decode() == "".join(f"{number:099}\n" for number in range(2000))


@pytest.mark.parametrize("no_gaps", [True, False])
def test_what_waits_is_bounded(
    pipe: tuple[int, IO[str]], no_gaps: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that reads events must not miss one without a word: to it nothing more is written. A person, who may
    have stopped the terminal, reads on."""
    monkeypatch.setattr(streams, "MOST_BYTES", 200_000)
    read, stream = pipe
    shown = Shown(stream, "standard output", no_gaps=no_gaps)
    with caplog.at_level(logging.WARNING):
        for number in range(4000):
            shown.write(f"{number:099}\n")
    assert len(caplog.records) == 1 and "200,000 bytes waiting" in caplog.text
    os.set_blocking(read, False)
    got = b""
    for _ in range(100):
        try:
            got += os.read(read, 65536)
        except BlockingIOError:
            time.sleep(0.005)
    shown.write("last\n")
    shown.drain()
    try:
        got += os.read(read, 65536)
    except BlockingIOError:
        assert no_gaps
    rows = got.decode().splitlines()
    assert (rows[-1] == "last") is not no_gaps
    numbers = [int(row) for row in rows if row != "last"]
    assert all(len(row) == 99 for row in rows if row != "last"), "nothing is cut off within a line"
    assert numbers == sorted(set(numbers)) and (no_gaps or len(numbers) > 100)
    assert not no_gaps or numbers == list(range(len(numbers)))


def test_a_terminal_that_is_stopped_and_goes_on() -> None:
    """Ctrl-S, and after it Ctrl-Q."""
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as stream:
            shown = Shown(stream, "standard error")
            assert shown.isatty()
            termios.tcflow(slave, termios.TCOOFF)
            assert timed(lambda: [shown.write(f"{n}\n") for n in range(1000)]) < 1
            termios.tcflow(slave, termios.TCOON)
            got = b""
            while b"999\r\n" not in got:
                got += os.read(master, 65536)
            assert got.decode().split() == [str(n) for n in range(1000)]
    finally:
        os.close(master)


def test_a_terminal_that_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream, caplog.at_level(logging.WARNING):
        shown = Shown(stream, "standard error")
        os.close(master)
        shown.write(LINE)
        shown.drain()
    assert os.strerror(errno.EIO) in caplog.text


@pytest.mark.parametrize("kind", [Shown, Printed])
def test_a_stream_that_was_told_not_to_block(pipe: tuple[int, IO[str]], kind: type[Shown] | type[Printed]) -> None:
    """By another program on the same terminal, say."""
    read, stream = pipe
    os.set_blocking(stream.fileno(), False)
    fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 4096)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(read, 4096), b"")))
    thread.start()
    written = kind(stream, "standard output")
    for _ in range(500):
        written.write(LINE)
    if isinstance(written, Shown):
        written.drain()
    stream.close()
    thread.join(5)
    assert b"".join(got).decode() == LINE * 500


@pytest.mark.parametrize("kind", [Shown, Printed])
def test_what_an_encoding_lacks_is_escaped(kind: type[Shown] | type[Printed]) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="ascii") as stream:
        written = kind(stream, "standard output")
        written.write("4.3 · ü\n")
        if isinstance(written, Shown):
            written.drain()
    assert os.read(read, 100) == b"4.3 \\xb7 \\xfc\n"
    os.close(read)


def test_a_note_before_there_is_a_log_is_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(root, "handlers", [])
    streams.note("first")
    root.handlers = [handler]
    streams.tell_log()
    streams.note("second")
    assert told == ["first", "second"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    """What was printed would land in it: in the ledger, say. Nor in a process that is started."""
    code = (
        "import os, subprocess, sys\nfrom tuner.streams import open_closed\nopen_closed()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "assert file.fileno() > 2\n"
        "print('said', file=sys.stdout, flush=True)\nprint('said', file=sys.stderr, flush=True)\n"
        "assert sys.stdin is not None\n"
        "child = 'import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))'\n"
        "assert subprocess.run([sys.executable, '-c', child], close_fds=True).returncode == 0\n"
        "file.write('whole')\n"
    )
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "whole"


@pytest.fixture
def _no_threads() -> Iterator[None]:
    """Makes the system refuse new threads, by a stack of 64 TB, as it does at the limit of processes."""
    threading.stack_size(2**46)
    yield
    threading.stack_size(0)


@pytest.mark.usefixtures("_no_threads")
def test_where_there_is_no_further_thread_the_words_come_all_the_same(pipe: tuple[int, IO[str]]) -> None:
    """For example that Ray could not start because there are too many processes."""
    read, stream = pipe
    shown = Shown(stream, "standard error")
    for word in ("no", "further", "process"):
        shown.write(f"{word}\n")
    shown.drain()
    assert os.read(read, 100) == b"no\nfurther\nprocess\n"


@pytest.mark.usefixtures("_no_threads")
def test_trackers_and_the_live_view_do_without_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    notes: list[str] = []
    tracking = Tracking({"far": lambda: pytest.fail("it has no thread")}, SearchRecord(), notes.append)
    for event in searches.finished().events:
        tracking(event)
    tracking.close(0.1)
    assert notes == ["the tracker far failed, and the search goes on without it: can't start new thread"]
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    with stream, caplog.at_level(logging.WARNING), LiveView(stream=stream) as view:
        view(searches.finished().events[0])
    os.close(master)
    assert "the live view cannot be drawn: can't start new thread" in caplog.text
