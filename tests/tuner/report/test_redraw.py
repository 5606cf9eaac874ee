"""The live view in a window that changes its size."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, ConsoleDimensions

from tests.tuner.report import searches
from tests.tuner.report.screen import Screen
from tuner.report.lines import plain, to_rich
from tuner.report.live import LiveView
from tuner.report.redraw import Redrawn, wraps

ROOT = Path(__file__).parents[3]
SIZES = [(160, 40), (80, 24), (50, 24), (50, 8), (40, 12), (200, 50), (120, 40), (30, 10)]


@pytest.mark.parametrize("terminal", ["wraps", "cuts"])
def test_nothing_is_left_behind_when_the_window_shrinks(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("STY", raising=False)
    monkeypatch.setenv("XTERM_VERSION", "" if terminal == "wraps" else "XTerm(390)")
    screen = Screen(*SIZES[0], wraps=terminal == "wraps")
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=160, height=40, _environ={"TERM": "xterm-256color"})
    view = LiveView(searches.LABELS, stream=io.StringIO(), record=searches.running().record)
    picture = [""]

    def drawn() -> object:
        lines = view.picture(console.width, console.height - 1, now=2e6)
        picture[0] = plain(lines).strip("\n")
        return to_rich(lines)

    def read() -> str:
        screen.write(written.getvalue())
        written.seek(0)
        written.truncate()
        return screen.text

    live = Redrawn(get_renderable=drawn, console=console, auto_refresh=False, transient=True)  # type: ignore[arg-type]
    live.start(refresh=True)
    for size in SIZES:
        read()
        screen.resize(*size)
        console.size = ConsoleDimensions(*size)
        for _ in range(2):
            live.refresh()
            assert read() == picture[0], size
    live.stop()
    assert read() == ""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0", "XTERM_VERSION": "XTerm(390)"}, True),
        ({"TERM": "screen", "STY": "1.tty"}, False),
        ({"TERM": "linux"}, False),
    ],
)
def test_terminals_that_wrap(environ: dict[str, str], expected: bool) -> None:
    assert wraps(environ) == expected


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_nothing_is_left_behind_in_tmux(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.tuner.report import searches\n"
        "from tuner.report.live import LiveView\n"
        "with LiveView(searches.LABELS, record=searches.running().record):\n"
        "    while not Path(sys.argv[1]).exists():\n"
        "        time.sleep(0.05)\n"
        "print('later output', file=sys.stderr)\n"
        "time.sleep(60)\n"
    )
    stop = tmp_path / "stop"
    tmux = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}

    def call(*words: str) -> str:
        return subprocess.run([*tmux, *words], check=True, capture_output=True, text=True, env=environ).stdout

    def awaited(is_there: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 60
        while not is_there(shown := call("capture-pane", "-p").strip("\n")) and time.monotonic() < deadline:
            time.sleep(0.2)
        return shown

    def one_picture(shown: str) -> bool:
        return (
            shown.startswith("first  5 of 16 trials")
            and shown.count("first  5 of 16") == shown.count("eval loss") == 1
            and all(len(row) <= width for row in shown.splitlines())
        )

    call("new-session", "-d", "-x", "160", "-y", "40", shlex.join([sys.executable, "-c", code, str(stop)]))
    try:
        for width, height in ((160, 40), (80, 24), (50, 24), (50, 8)):
            call("resize-window", "-x", str(width), "-y", str(height))
            shown = awaited(one_picture)
            assert one_picture(shown), shown
        stop.touch()
        assert awaited(lambda shown: "later output" in shown) == "later output"
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
