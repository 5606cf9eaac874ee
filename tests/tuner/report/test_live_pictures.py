"""Pictures of the live view and of the end of a search, from one ledger: at three sizes, on light and on dark."""

from __future__ import annotations

import io
import re

import pytest
from rich.color import blend_rgb
from rich.console import Console, ConsoleDimensions
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme

from tests.tuner.report import golden, searches
from tests.tuner.report.screen import Screen
from tuner.report.lines import STYLES, plain, to_rich
from tuner.report.live import LiveView, frame
from tuner.report.redraw import Redrawn
from tuner.report.summary import Place, summary
from tuner.results.records import SearchRecord

SIZES = [(200, 50), (120, 40), (80, 24)]
THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": DIMMED_MONOKAI}
PLACE = Place("code-8b", kept=("adapter (1.2 MB)", "train.yaml", "README.md"))


def middle() -> SearchRecord:
    """The search while two of its trials run and nine have ended."""
    events = searches.recorded().events
    ended = [place for place, event in enumerate(events) if event.event == "ended"]
    running = [event for event in events[ended[9] + 1 :] if event.number == 11][:3]
    return SearchRecord.fold([*events[: ended[9]], *running])


def shown(record: SearchRecord, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a terminal shows whose window shrinks from size to size."""
    for name in ("TMUX", "STY", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    screen, written = Screen(*SIZES[0]), io.StringIO()
    environ = {"TERM": "xterm-256color"}
    console = Console(file=written, force_terminal=True, width=SIZES[0][0], height=SIZES[0][1], _environ=environ)
    view = LiveView(searches.LABELS, stream=io.StringIO(), record=record)
    live = Redrawn(
        get_renderable=lambda: to_rich(view.picture(console.width, console.height - 1, now=view._heard[1])),
        console=console,
        auto_refresh=False,
        transient=True,
    )
    pictures = {}
    for width, height in SIZES:
        screen.resize(width, height)
        console.size = ConsoleDimensions(width, height)
        live.start(refresh=True)
        live.refresh()
        screen.write(written.getvalue())
        written.seek(0)
        written.truncate()
        pictures[f"{width}x{height}"] = screen.text + "\n"
    live.stop()
    return pictures


def test_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, over = middle(), searches.recorded().record
    parts = {f"in the middle, {size}": text for size, text in shown(at_work, monkeypatch).items()}
    parts |= {f"at the end, {size}": text for size, text in shown(over, monkeypatch).items()}
    for width, height in SIZES:
        text = plain(summary(over, PLACE, width, labels=searches.LABELS))
        parts[f"the summary, {width}x{height}"] = text
    golden.check("report_pictures.txt", parts)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_window_that_shrank_shows_what_one_of_its_size_shows(
    at_the_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = searches.recorded().record if at_the_end else middle()
    pictures = shown(record, monkeypatch)
    for width, height in SIZES:
        lines = frame(record, width, height - 1, elapsed=record.wall_s, labels=searches.LABELS)
        assert pictures[f"{width}x{height}"] == plain(lines)


def test_the_bar_is_honest_where_the_first_trial_ended_without_a_step() -> None:
    events = searches.recorded().events
    first = next(place for place, event in enumerate(events) if event.event == "ended")
    record = SearchRecord.fold(events[: first + 1])
    text = plain(frame(record, 120, 40, elapsed=record.wall_s))
    assert "1 of 16 trials" in text and "   0%   " in text


@pytest.mark.parametrize("theme", THEMES)
def test_every_colour_can_be_read(theme: str) -> None:
    """At least 3 to 1 against the background, WCAG's least for large text and what is drawn."""
    told = {name: contrast(Style.parse(style), THEMES[theme]) for name, style in STYLES.items()}
    assert {name: ratio for name, ratio in told.items() if ratio < 3} == {}


def contrast(style: Style, theme: TerminalTheme) -> float:
    """How a text of this style stands out from the theme's background: 1 is not at all, 21 black on white."""
    back = theme.background_color
    colour = style.color.get_truecolor(theme) if style.color else theme.foreground_color
    colour = blend_rgb(colour, back, 0.4) if style.dim else colour
    light, dark = sorted((_luminance(colour), _luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    parts = (c / 255 for c in colour)
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colours of the live view away; a dumb terminal has plain lines, which have none."""
    written = io.StringIO()
    environ = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    console = Console(file=written, force_terminal=True, width=120, _environ=environ)
    console.print(to_rich(frame(middle(), 120, 24, elapsed=60.0)))
    assert "trial 3: 4.250" in written.getvalue()
    assert {code for codes in re.findall(r"\x1b\[([\d;]*)m", written.getvalue()) for code in codes.split(";")} <= {
        "0", "1", "2",
    }, "bold and dim are no colours"  # fmt: skip
    monkeypatch.setenv("TERM", "dumb")
    from tuner.cli.output import view
    from tuner.report.plain import PlainView

    monkeypatch.setattr("sys.stderr", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    assert isinstance(view({}), PlainView)
