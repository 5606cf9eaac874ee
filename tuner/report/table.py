"""The leaderboard: a row a trial, fitted to the terminal's width.

What does not fit is given up in this order: the ending's details, long headings, the ending's status word, parameters
from the last one on, what is measured beside the objective, the step, the curve. A row is never wrapped, and the
parameters that are left out are named beneath the table.
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
TIGHT = {"learning_rate": "lr", "lora_r": "r", "schedule": "sched"}
"""Headings where room is short: the two names that everybody who reads this table knows by a letter or two."""
VALUE_WIDTH = 14
"""Cells a parameter's value may take; a list of module names is cut."""
ENDING_WIDTH = 52
"""Cells that an ending's full words may claim before the table looks for a shorter form."""

_ENDING_STYLE = {Status.COMPLETED: "", Status.PRUNED: "dim", Status.FAILED: "bad", Status.STOPPED: "warn"}
BAR_WIDTH = 10
"""Cells of a running trial's own bar, shown where its ending will stand."""


@dataclass(frozen=True)
class _Form:
    """One way to fit the table: how many parameters, how much of the ending, short headings, step and curve or not.

    measured: how many objectives."""

    parameters: int
    ending: int
    measured: int
    tight: bool = False
    step: bool = True
    curve: bool = True


def leaderboard(
    record: SearchRecord,
    width: int,
    *,
    labels: Mapping[str, str] | None = None,
    rows: int | None = None,
    trials: Sequence[TrialRecord] | None = None,
) -> list[Line]:
    """The table of a search, the winner first; at most `rows` rows of trials, then "…" and what is not shown.

    labels: short column headings by parameter name. trials: which trials, in this order, instead of the leaderboard.
    """
    ranked = list(record.leaderboard if trials is None else trials)
    if not ranked:
        return []
    names = parameters(record)
    heads = [label_of(name, labels) for name in names]
    shown = ranked if rows is None or len(ranked) <= rows else ranked[: max(1, rows)]
    table = _Table(record, shown, names, heads)
    form = table.fit(width)
    out = table.lines(form, width)
    if len(shown) < len(ranked):
        out.append(line((f"{'…':>3}  {words.plural(len(ranked) - len(shown), 'more trial')}", "dim")))
    if form.parameters < len(names):
        hidden = f"not shown at this width: {', '.join(heads[form.parameters :])}"
        out += [line((f"     {row}", "dim")) for row in folded(hidden, max(15, width - 5))]
    return out


def parameters(record: SearchRecord) -> list[str]:
    """The searched parameters, in the space's order; those that never differ say nothing and are left out."""
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
    """How a trial ended. 0: "pruned: rung 1 (6.402, needed 5.910)", 1: "pruned: rung 1", 2: "rung 1"."""
    mark = mark_of(trial)
    if not trial.has_ended:
        state = _activity(trial) if trial.is_running else trial.state
        return (trial.ending if trial.interrupted and level == 0 else state) + mark
    full = clean(trial.ending)
    if level == 0:
        return full + mark
    if trial.status is Status.FAILED or trial.reason is Reason.SEARCH:
        short = str(trial.reason).replace("_", " ")  # a message of the libraries beneath may have any length
    else:
        short = _first_words(clean(trial.message) or str(trial.reason))
    plain = level == 2 and trial.reason not in (Reason.ERROR, Reason.SEARCH, Reason.USER, Reason.CONFIG, Reason.DATA)
    return (short if plain else f"{trial.status}: {short}") + mark


def mark_of(trial: TrialRecord) -> str:
    """What is said of a trial that the sampler did not choose: " (recipe)", " (added)"."""
    return " (recipe)" if trial.number == RECIPE else " (added)" if trial.added_by else ""


def _activity(trial: TrialRecord) -> str:
    return "running" if trial.points else "training" if trial.setup else "starting"


def _first_words(message: str) -> str:
    """The part of a message before its details: "flat, 3 evaluations ..." is "flat"."""
    for stop in (" (", ", ", ": ", "; "):
        message = message.partition(stop)[0]
    return message


class _Table:
    """The cells of all rows, measured once, laid out in the widest form that fits."""

    def __init__(self, record: SearchRecord, trials: list[TrialRecord], names: list[str], heads: list[str]) -> None:
        self._trials = trials
        self._best = record.best
        scale = Scale.of(record)
        self._heads = heads
        powers = {n for n in names if any(words.is_scientific(t.params.get(n)) for t in trials)}
        self._values = [[_value(t, name, name in powers) for name in names] for t in trials]
        self._steps = [place(t) if t.points or t.max_steps else "-" for t in trials]
        self._objectives = [objective.heading for objective in record.objectives]
        self._measured = [[words.measured(value) for value in shown_values(t, record.objectives)] for t in trials]
        self._curves = [sparkline(t.points, scale) for t in trials]
        self._number_width = max(3, *(len(str(t.number)) for t in trials))

    def fit(self, width: int) -> _Form:
        n, all_ = len(self._heads), len(self._objectives)
        forms = [_Form(n, 0, all_), _Form(n, 1, all_), _Form(n, 1, all_, tight=True), _Form(n, 2, all_, tight=True)]
        forms += [_Form(kept, 2, all_, tight=True) for kept in range(n - 1, 0, -1)]
        forms += [_Form(min(1, n), 2, kept, tight=True) for kept in range(all_ - 1, 0, -1)]
        last = _Form(min(1, n), 2, 1, tight=True)
        forms += [replace(last, step=False), replace(last, step=False, curve=False)]
        forms.append(_Form(0, 2, 1, tight=True, step=False, curve=False))
        return next((form for form in forms if self._needed(form) <= width), forms[-1])

    def _needed(self, form: _Form) -> int:
        endings = [ending(t, form.ending) for t in self._trials]
        claims = [min(width_of(e), ENDING_WIDTH) for e in endings]
        claims += [BAR_WIDTH + 5 for t in self._trials if t.is_running]
        return self._left_width(form) + max(claims)

    def _headings(self, form: _Form) -> list[str]:
        return [TIGHT.get(head, head) if form.tight else head for head in self._heads[: form.parameters]]

    def _columns(self, form: _Form) -> list[int]:
        return [
            max(width_of(head), *(width_of(row[i]) for row in self._values))
            for i, head in enumerate(self._headings(form))
        ]

    def _left_width(self, form: _Form) -> int:
        parts = [self._number_width, *self._columns(form), *self._measured_widths(form)]
        parts += [self._step_width] if form.step else []
        parts += [WIDTH] if form.curve else []
        return sum(parts) + len(GAP) * len(parts)

    @property
    def _step_width(self) -> int:
        return max(4, *(len(s) for s in self._steps))

    def _measured_widths(self, form: _Form) -> list[int]:
        """The first objective's column, and those of the others that are shown."""
        headings = self._objectives[: form.measured]
        return [max(len(head), *(len(row[i]) for row in self._measured)) for i, head in enumerate(headings)]

    def lines(self, form: _Form, width: int) -> list[Line]:
        columns, measured = self._columns(form), self._measured_widths(form)
        head = [pad("#", self._number_width, right=True)]
        head += [pad(h, w) for h, w in zip(self._headings(form), columns, strict=True)]
        head += [pad("step", self._step_width)] if form.step else []
        head += [pad(name, w) for name, w in zip(self._objectives, measured, strict=False)]
        head += [pad("curve", WIDTH)] if form.curve else []
        out = [crop(line((GAP.join([*head, "ending"]), "head")), width)]
        for index, trial in enumerate(self._trials):
            style = self._row_style(trial)
            cells: list[Span] = [(pad(str(trial.number), self._number_width, right=True), style)]
            cells += [(pad(v, w), style) for v, w in zip(self._values[index], columns, strict=False)]
            cells += [(pad(self._steps[index], self._step_width), style)] if form.step else []
            best = self._value_style(trial)
            cells += [(pad(v, w), best) for v, w in zip(self._measured[index], measured, strict=False)]
            cells += [(pad(self._curves[index], WIDTH), style or "bar")] if form.curve else []
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
        text = ending(trial, form.ending)
        if form.ending == 1 and width_of(ending(trial)) <= room:  # a row that has the room says it all
            text = ending(trial)
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
        return "·"  # not drawn: the condition it stands under did not hold
    return shorten(clean(words.value(trial.params[name], scientific)), VALUE_WIDTH)


def shown_values(trial: TrialRecord, objectives: Sequence[Objective]) -> list[float | None]:
    """The values of a row, the one that it is ranked by first: of the best evaluation where that counts, and where a
    trial went wrong of the one that it ended with."""
    metrics = trial.best_metrics if trial.is_usable or not trial.has_ended else trial.metrics
    return [metrics.get(objective.name) for objective in objectives]


def progress_bar(share: float, width: int) -> list[Span]:
    """A bar of `width` cells, filled to `share`."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return [(full, "bar"), ("─" * (width - len(full)), "rest")]
