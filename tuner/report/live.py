"""The live view: shows what a search is doing, redrawn in place.

`frame` makes one picture from a record; `LiveView` listens to events and shows the newest picture at most four times
a second. rich's own thread draws the picture, so an event costs the driver only the time to fold it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING

from tuner.contract import Status
from tuner.report import formatting as words
from tuner.report import standing
from tuner.report.lines import Line, Span, clean, crop, for_stream, labelled, line, line_width, shorten, title, to_rich
from tuner.report.plain import facts_text
from tuner.report.progress import Progress, estimate
from tuner.report.table import leaderboard, progress_bar
from tuner.report.view import View
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord, TrialRecord
from tuner.streams import note

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REFRESH_PER_SECOND = 4
AT_LEISURE = 20
"""A picture stays for this many times as long as it took to draw: one of 10,000 trials takes 0.3 s, and the driver's
loop waits for it."""
NOTES = 2
"""Notes for the user in the picture, the newest ones; all of them are in the ledger."""

NOTE_ROWS = 3
"""The most rows of one note on a small terminal."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def frame(
    record: SearchRecord,
    width: int,
    height: int,
    *,
    elapsed: float,
    labels: Mapping[str, str] | None = None,
    least_share: float = 0.0,
    doing: str = "",
    progress: Progress | None = None,
) -> list[Line]:
    """One picture of a running search, at most `width` by `height` cells.

    elapsed: seconds so far. least_share: the share that the bar has shown before; an estimate may fall, the bar must
    not. doing: what happens and is no event ("stopping"). labels: short column headings by parameter name. progress:
    the estimate, if it was made already.
    """
    progress = progress or estimate(record, elapsed)
    lines = [_bar(record, width, max(progress.share, least_share), progress, elapsed, doing)]
    leader = standing.leader(record)
    if leader:
        lines += labelled("best", standing.against_recipe(record, leader), width, "best", divided=True)
    if not record.trials and (prepared := facts_text(record.facts)):
        lines += labelled("data", prepared, width, divided=True)
    for text in record.notes[-NOTES:]:
        rows = labelled("note", clean(text), width, divided=True)
        most = max(NOTE_ROWS, height // 8)
        if len(rows) > most:
            rows[most - 1 :] = [(*rows[most - 1], (" …", ""))]
        lines += rows
    lines = [crop(row, width) for row in lines[:height]]
    if not record.trials:
        return lines
    lines.append(())
    room = height - len(lines) - 1  # the table's own heading
    trials = select(record, room)
    now = (record.updated or 0.0) + max(0.0, elapsed - record.wall_s)
    table = leaderboard(record, width, labels=labels, trials=trials, best=leader, now=now)
    hidden = len(record.trials) - len(trials)
    if hidden > 0:
        table = [*table[: len(trials) + 1], line((f"{'…':>3}  {words.plural(hidden, 'more trial')}", "dim"))]
    return (lines + table)[:height]


def select(record: SearchRecord, room: int) -> list[TrialRecord]:
    """The trials to show in `room` rows. The best one and the running ones are chosen first.

    In the order of the picture: the best so far, what completed, what runs, what waits, what was stopped early, what
    went wrong.
    """
    best = standing.leader(record)
    ranked = sorted(record.leaderboard, key=lambda trial: _rank(trial, best))
    if len(ranked) <= room:
        return ranked
    room = max(1, room - 1)  # one row says how many are missing
    first = sorted(ranked, key=lambda trial: trial is not best and not trial.is_running)
    chosen = {trial.number for trial in first[:room]}
    return [trial for trial in ranked if trial.number in chosen]


def _rank(trial: TrialRecord, best: TrialRecord | None) -> int:
    if trial is best:
        return 0
    if not trial.has_ended:
        return 2 if trial.is_running else 3
    if trial.status is Status.COMPLETED:
        return 1 if trial.is_usable else 5
    return 4 if trial.is_usable else 5


def _bar(record: SearchRecord, width: int, share: float, progress: Progress, elapsed: float, doing: str) -> Line:
    """ "first   5 of 16 trials  ━━━━━━╸━━━━━━  43%  0:41, 40 to 55 s left · 2 running on 2 workers · 1.2M tokens"."""
    running = len(record.running)
    name = title(shorten(record.name or "search", 24))
    doing = doing or ("stopping" if record.stopped else f"paused {clean(record.paused)}" if record.paused else "")
    if not record.trials:
        spinner = _SPINNER[int(elapsed * REFRESH_PER_SECOND) % len(_SPINNER)]
        what = doing or (
            "waiting for the first worker" if record.facts else "starting Ray, preparing the base and the data"
        )
        return crop(line(name, (f"{spinner} {what}", "run"), (f"   {words.clock(elapsed)}", "dim")), width)
    count = f"{record.num_ended} of {words.plural(record.num_trials, 'trial')}   "
    left = progress.left
    time_left = "" if left is None or doing else f", {words.between(left.least, left.most)} left"
    if not doing and not running and record.num_ended >= record.num_trials and not record.finished:
        doing = "keeping the best adapter"
    tail = f"{doing} · " if doing else ""
    tail += f"{words.clock(elapsed)}{time_left}"
    workers = f" · {running} running on {words.plural(record.workers, 'worker')}" if running and record.workers else ""
    head: list[Span] = [name, (count, "")]
    percent: Span = (f" {words.whole_percent(min(share, 0.99) if not record.finished else 1.0):>4}   ", "strong")
    for end in (tail + workers + _tokens(record, progress), tail + workers, tail, words.clock(elapsed), ""):
        room = width - line_width((*head, percent)) - len(end)
        if room >= 10 or not end:
            bar = progress_bar(share, min(40, room)) if room >= 4 else []
            return crop((*head, *bar, percent, (end, "dim")), width)
    return tuple(head)


def _tokens(record: SearchRecord, progress: Progress) -> str:
    """ " · 1.2M of about 3.9M tokens": spent, and expected of all planned trials."""
    spent = record.tokens
    if not spent:
        return ""
    if record.finished or not progress.done:
        return f" · {words.count(spent)} tokens"
    return f" · {words.count(spent)} of about {words.count(spent * progress.expected / progress.done)} tokens"


class LiveView(View):
    """A listener that keeps a terminal up to date; use it as a context manager around the search.

    Its picture is erased when it ends: the summary takes its place. Text that is printed meanwhile goes above it.
    record: of the earlier sessions, for a search that is resumed.
    """

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        stream: IO[str] | None = None,
        record: SearchRecord | None = None,
    ) -> None:
        super().__init__(labels, stream, record)
        self._heard: tuple[float | None, float] = (self._record.updated, time.monotonic())
        """When the last event was written, by the ledger's clock, and when it came, by the monotonic one."""
        self._least_share = 0.0
        self._doing = ""
        self._live: Live | None = None
        self._events = 0
        self._drawn: tuple[tuple[object, ...], list[Line]] = ((), [])
        """The last lines, and all that they depend on."""
        self._shown: tuple[tuple[int, int], RenderableType] | None = None
        """The last picture, and the terminal's size that it was made for."""
        self._redraw_at = 0.0
        """The monotonic time before which the last picture is shown again."""
        self._failed = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._record.apply(event)
            self._events += 1
            if event.event is Kind.SEARCH:  # a resume may add trials, so the bar may fall
                self._least_share = 0.0

    def say(self, doing: str) -> None:
        """Shows what happens now and is no event ("stopping: saving what is running")."""
        with self._lock:
            self._doing = doing

    count = say
    """Shows how far something is that takes long."""

    def __enter__(self) -> LiveView:
        from rich.console import Console

        from tuner.report.redraw import Redrawn

        console = Console(file=self._stream, highlight=False)
        self._live = Redrawn(
            get_renderable=self._rendered,
            console=console,
            redirect_stdout=False,  # it belongs to `--events` and `--json`
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            vertical_overflow="crop",
        )
        try:
            self._live.start(refresh=True)
        except RuntimeError as error:  # the system gives no further thread
            self._live.stop()
            self._live = None
            note(f"the live view cannot be drawn: {error}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _rendered(self) -> RenderableType:
        """The picture. If it cannot be made, the last one: an error here must not end the search."""
        from rich.text import Text

        try:
            return self._render() if self._live is not None else Text("")
        except Exception as error:
            if not self._failed:
                self._failed = True
                note(f"the live view cannot be drawn: {type(error).__name__}: {error}")
            return self._shown[1] if self._shown else Text("")

    def _render(self) -> RenderableType:
        assert self._live is not None
        began = time.monotonic()
        width, height = size = self._live.console.size
        if self._shown and self._shown[0] == size and began < self._redraw_at:
            return self._shown[1]
        with self._lock:
            lines = self.picture(width, height - 1)
        self._shown = size, to_rich([for_stream(spans, self._stream) for spans in lines])
        self._redraw_at = time.monotonic() + AT_LEISURE * (time.monotonic() - began)
        return self._shown[1]

    def picture(self, width: int, height: int, now: float | None = None) -> list[Line]:
        """The lines of the picture. now: the time on the monotonic clock, in seconds; None: the present."""
        record = self._record
        now = time.monotonic() if now is None else now
        if self._heard[0] != record.updated:
            self._heard = record.updated, now
        elapsed = record.wall_s + max(0.0, now - self._heard[1])
        # A picture with a table changes only with events and once a second; to make it takes 30 ms at 1,000 trials.
        tick = int(elapsed) if record.trials else elapsed
        key = (self._events, tick, width, height, self._doing)
        if self._drawn[0] != key:
            progress = estimate(record, elapsed)
            self._least_share = max(self._least_share, progress.share) if record.trials else 0.0
            lines = frame(
                record,
                width,
                height,
                elapsed=elapsed,
                labels=self._labels,
                least_share=self._least_share,
                doing=self._doing,
                progress=progress,
            )
            self._drawn = key, lines
        return self._drawn[1]
