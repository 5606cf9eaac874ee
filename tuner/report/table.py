"""Makes the leaderboard: a row a trial, no wider than the terminal.

If it is too wide, these are left out in this order: what a trial costs (node, memory, speed, tokens, time), long
headings, the ending's status word, parameters from the last one on, what is measured beside the objective, the step,
the curve. A row is never wrapped, and the parameters that are left out are named beneath the table. The room for the
endings is the same whatever they say, so that one long message moves no column; it is cut where it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.contract import Objective, Reason, Status
from tuner.report import formatting as words
from tuner.report.curve import WIDTH, Scale, sparkline
from tuner.report.lines import Line, Span, clean, crop, folded, line, pad, shorten, width_of
from tuner.report.standing import place
from tuner.results.records import RECIPE, SearchRecord, TrialRecord

GAP = "  "
"""Between two columns."""
TIGHT = {"learning_rate": "lr", "lora_r": "r", "schedule": "sched"}
"""Short headings for a table that is too wide; readers of this table know these parameters by them."""
NODE_WIDTH = 20
"""The most cells of a node's name."""
VALUE_WIDTH = 14
"""The most cells of a parameter's value; a list of module names is cut."""
ENDING_WIDTHS = {1: len("completed: budget (recipe)"), 2: len("budget (recipe)")}
"""The cells that the table reserves for endings, by the level of `ending`; a longer one is cut where no more are left.
It has its details where they fit."""
CUT_WIDTH = 40
"""The cells from which on an unexpected error's message is shown as far as it fits."""
WIDE = 140
"""The columns from which on the table has what a trial costs."""

_ENDING_STYLE = {Status.COMPLETED: "", Status.PRUNED: "dim", Status.FAILED: "bad", Status.STOPPED: "warn"}
BAR_WIDTH = 10
"""Cells of a running trial's progress bar, in the column of its ending."""


@dataclass(frozen=True)
class _Form:
    """What a table shows."""

    parameters: int
    """How many parameters, from the first."""
    ending: int
    """How short the endings are: the `level` of `ending`."""
    measured: int
    """How many objectives, from the first."""
    tight: bool = False
    """Whether the headings are those of TIGHT."""
    step: bool = True
    curve: bool = True
    costs: int = 0
    """How many of the columns of COSTS, from the first."""


def leaderboard(
    record: SearchRecord,
    width: int,
    *,
    labels: Mapping[str, str] | None = None,
    rows: int | None = None,
    trials: Sequence[TrialRecord] | None = None,
    best: TrialRecord | None = None,
    now: float | None = None,
) -> list[Line]:
    """The table of a search, the winner first; at most `rows` trials, then a row that counts the others.

    labels: short column headings by parameter name. trials: these, in this order, instead of all by rank. best: the
    trial that is marked, instead of the winner. now: the time in seconds since 1970, instead of that of the last event.
    """
    ranked = list(record.leaderboard if trials is None else trials)
    if not ranked:
        return []
    names = parameters(record)
    heads = [label_of(name, labels) for name in names]
    shown = ranked if rows is None or len(ranked) <= rows else ranked[: max(1, rows)]
    table = _Table(record, shown, names, heads, best or record.best, now or record.updated or 0.0, width >= WIDE)
    form = table.choose_form(width)
    out = table.lines(form, width)
    if len(shown) < len(ranked):
        out.append(line((f"{'…':>3}  {words.plural(len(ranked) - len(shown), 'more trial')}", "dim")))
    if form.parameters < len(names):
        hidden = f"not shown at this width: {', '.join(heads[form.parameters :])}"
        out += [line((f"     {row}", "dim")) for row in folded(hidden, max(15, width - 5))]
    return out


def parameters(record: SearchRecord) -> list[str]:
    """The searched parameters, in the space's order, without those that are the same in all trials."""
    trials = [record.trials[n] for n in sorted(record.trials)]
    names = dict.fromkeys(name for trial in [t for t in trials if t.number != RECIPE] + trials for name in trial.params)
    absent = object()
    differing = [n for n in names if len({repr(t.params.get(n, absent)) for t in trials}) > 1]
    return differing if len(trials) > 1 else list(names)


def label_of(name: str, labels: Mapping[str, str] | None = None) -> str:
    """A parameter's heading: its label, or the last part of its dotted name."""
    short = name.rpartition(".")[2]
    return (labels or {}).get(name) or (labels or {}).get(short) or short


def ending(trial: TrialRecord, level: int = 0) -> str:
    """How a trial ended. level 0: "pruned: rung 1 (6.402, needed 5.910)", 1: "pruned: rung 1", 2: "rung 1"."""
    mark = mark_of(trial)
    if not trial.has_ended:
        state = _activity(trial) if trial.is_running else trial.state
        return (trial.ending if trial.interrupted and level == 0 else state) + mark
    full = clean(trial.ending)
    if level == 0:
        return full + mark
    if trial.status is Status.FAILED or trial.reason is Reason.SEARCH:
        short = str(trial.reason).replace("_", " ")  # a library's message may have any length
    else:
        short = _first_words(clean(trial.message) or str(trial.reason))
    plain = level == 2 and trial.reason not in (Reason.ERROR, Reason.SEARCH, Reason.USER, Reason.CONFIG, Reason.DATA)
    return (short if plain else f"{trial.status}: {short}") + mark


def mark_of(trial: TrialRecord) -> str:
    """The mark of a trial that the sampler did not draw: " (recipe)" or " (added)"; "" for all others."""
    return " (recipe)" if trial.number == RECIPE else " (added)" if trial.added_by else ""


def _activity(trial: TrialRecord) -> str:
    return "running" if trial.points else "training" if trial.setup else "starting"


def _first_words(message: str) -> str:
    """The part of a message before its details: "flat, 3 evaluations ..." is "flat"."""
    for stop in (" (", ", ", ": ", "; "):
        message = message.partition(stop)[0]
    return message


class _Table:
    """The cells of all rows; made once, and laid out in the widest form that the terminal has room for."""

    def __init__(
        self,
        record: SearchRecord,
        trials: list[TrialRecord],
        names: list[str],
        heads: list[str],
        best: TrialRecord | None,
        now: float,
        wide: bool,
    ) -> None:
        self._trials = trials
        self._best = best
        scale = Scale.of(record)
        self._heads = heads
        powers = {n for n in names if any(words.is_scientific(t.params.get(n)) for t in trials)}
        self._values = [[_value(t, name, name in powers) for name in names] for t in trials]
        self._steps = [place(t) if t.points or t.max_steps else "-" for t in trials]
        self._objectives = [objective.heading for objective in record.objectives]
        self._measured = [[words.measured(value) for value in shown_values(t, record.objectives)] for t in trials]
        self._curves = [sparkline(t.points, scale) for t in trials]
        told = [(heading, [cell(t, now) for t in trials]) for heading, cell in COSTS.items()] if wide else []
        self._costs = [(heading, cells) for heading, cells in told if any(cells)]
        self._cost_widths = [max(width_of(heading), *map(width_of, cells)) for heading, cells in self._costs]
        self._value_widths = [max(width_of(row[i]) for row in self._values) for i in range(len(names))]
        self._step_width = max(4, *(len(step) for step in self._steps))
        self._number_width = max(3, *(len(str(t.number)) for t in trials))

    def choose_form(self, width: int) -> _Form:
        """The form that shows the most at this width."""
        n, all_, costs = len(self._heads), len(self._objectives), len(self._costs)
        full = [_Form(n, 1, all_), _Form(n, 1, all_, tight=True)]
        forms = [replace(form, costs=kept) for form in full for kept in range(costs, 0, -1)]
        forms += [*full, _Form(n, 2, all_, tight=True)]
        forms += [_Form(kept, 2, all_, tight=True) for kept in range(n - 1, 0, -1)]
        forms += [_Form(min(1, n), 2, kept, tight=True) for kept in range(all_ - 1, 0, -1)]
        last = _Form(min(1, n), 2, 1, tight=True)
        forms += [replace(last, step=False), replace(last, step=False, curve=False)]
        forms.append(_Form(0, 2, 1, tight=True, step=False, curve=False))
        return next((f for f in forms if self._left_width(f) + ENDING_WIDTHS[f.ending] <= width), forms[-1])

    def _headings(self, form: _Form) -> list[str]:
        return [TIGHT.get(head, head) if form.tight else head for head in self._heads[: form.parameters]]

    def _columns(self, form: _Form) -> list[int]:
        return [max(width_of(head), self._value_widths[i]) for i, head in enumerate(self._headings(form))]

    def _left_width(self, form: _Form) -> int:
        parts = [self._number_width, *self._columns(form), *self._measured_widths(form)]
        parts += [self._step_width] if form.step else []
        parts += [WIDTH] if form.curve else []
        parts += self._cost_widths[: form.costs]
        return sum(parts) + len(GAP) * len(parts)

    def _measured_widths(self, form: _Form) -> list[int]:
        """The widths of the objectives' columns."""
        headings = self._objectives[: form.measured]
        return [max(len(head), *(len(row[i]) for row in self._measured)) for i, head in enumerate(headings)]

    def lines(self, form: _Form, width: int) -> list[Line]:
        """The heading and the rows in a form."""
        columns, measured = self._columns(form), self._measured_widths(form)
        head = [pad("#", self._number_width, right=True)]
        head += [pad(h, w) for h, w in zip(self._headings(form), columns, strict=True)]
        head += [pad("step", self._step_width)] if form.step else []
        head += [pad(name, w) for name, w in zip(self._objectives, measured, strict=False)]
        head += [pad("curve", WIDTH)] if form.curve else []
        head += [pad(heading, self._cost_widths[i]) for i, (heading, _) in enumerate(self._costs[: form.costs])]
        out = [crop(line((GAP.join([*head, "ending"]), "head")), width)]
        for index, trial in enumerate(self._trials):
            style = self._row_style(trial)
            cells: list[Span] = [(pad(str(trial.number), self._number_width, right=True), style)]
            cells += [(pad(v, w), style) for v, w in zip(self._values[index], columns, strict=False)]
            cells += [(pad(self._steps[index], self._step_width), style)] if form.step else []
            best = self._value_style(trial)
            cells += [(pad(v, w), best) for v, w in zip(self._measured[index], measured, strict=False)]
            cells += [(pad(self._curves[index], WIDTH), style or "bar")] if form.curve else []
            for i, (_, told) in enumerate(self._costs[: form.costs]):
                cells.append((pad(told[index] or "-", self._cost_widths[i]), style))
            row = [span for cell in cells for span in (cell, (GAP, ""))]
            room = width - self._left_width(form)
            out.append(crop(tuple(row + self._ending(trial, form, room)), width))
        return out

    def _ending(self, trial: TrialRecord, form: _Form, room: int) -> list[Span]:
        if trial.is_running and trial.points and trial.max_steps and room >= BAR_WIDTH:
            return progress_bar(trial.step / trial.max_steps, BAR_WIDTH) + self._mark(trial, room)
        style = "warn" if trial.interrupted else "run" if trial.is_running else "dim"
        style = _ENDING_STYLE[trial.status] if trial.status else style
        style = "best" if trial is self._best else style
        levels = (0, 1, 2) if form.ending == 1 else (2,)
        if trial.reason is Reason.ERROR and room >= CUT_WIDTH:  # a message says more than its first words, also if cut
            levels = (0,)
        told = [ending(trial, level) for level in levels]
        told.append(told[-1].removesuffix(mark_of(trial)))
        text = next((t for t in told if width_of(t) <= room), told[-1])
        return [(shorten(text, room), style)]

    def _mark(self, trial: TrialRecord, room: int) -> list[Span]:
        mark = mark_of(trial)
        return [(mark, "run")] if mark and room >= BAR_WIDTH + len(mark) else []

    def _row_style(self, trial: TrialRecord) -> str:
        if trial is self._best:
            return "best"
        if trial.is_running:
            return "run"
        return "" if trial.status is Status.COMPLETED else "dim"

    def _value_style(self, trial: TrialRecord) -> str:
        return self._row_style(trial) if trial is self._best or trial.status is not Status.COMPLETED else "strong"


def _value(trial: TrialRecord, name: str, scientific: bool) -> str:
    if name not in trial.params:
        return "·"  # not drawn: its condition (`when`) did not hold
    return shorten(clean(words.value(trial.params[name], scientific)), VALUE_WIDTH)


def _time(trial: TrialRecord, now: float) -> str:
    seconds = trial.seconds(now)
    return words.clock(seconds) if seconds else ""


def _tokens(trial: TrialRecord, now: float) -> str:
    return words.count(trial.tokens) if trial.tokens else ""


def _speed(trial: TrialRecord, now: float) -> str:
    speed = trial.speed
    return words.count(speed) if speed else ""


def _memory(trial: TrialRecord, now: float) -> str:
    memory = max((p.memory for p in trial.points if p.memory), default=0)
    return words.size(memory) if memory else ""


def _node(trial: TrialRecord, now: float) -> str:
    return shorten(clean(str(trial.setup.get("node") or "")), NODE_WIDTH)


COSTS = {"time": _time, "tokens": _tokens, "tok/s": _speed, "memory": _memory, "node": _node}
"""The columns of what a trial costs: heading, and its cell at a time ("" where the ledger says nothing of it). A column
without any cell is left out."""


def shown_values(trial: TrialRecord, objectives: Sequence[Objective]) -> list[float | None]:
    """The objectives' values in a row, the one that it is ranked by first: those of the best evaluation, or of the last
    one if the trial has an unusable ending. What that evaluation did not measure is the last that was measured."""
    metrics = trial.best_metrics if trial.is_usable or not trial.has_ended else trial.metrics
    return [metrics[o.name] if o.name in metrics else trial.last(o.name) for o in objectives]


def progress_bar(share: float, width: int) -> list[Span]:
    """A bar of `width` cells, filled to `share`."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return [(full, "bar"), ("─" * (width - len(full)), "rest")]
