"""The report of a search as Markdown, as CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tuner.report import formatting as words
from tuner.report.facts import Facts, report_json, share_of
from tuner.report.lines import clean, shorten
from tuner.report.machine import dump, status_json
from tuner.report.table import ending, label_of, shown_values
from tuner.results.records import TrialRecord

ROWS = 200
"""The most rows of the leaderboard in Markdown."""
_LONGEST = 120
"""Characters of a cell in Markdown."""
_STEERS = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
"""What Markdown or the HTML in it may take for more than text."""


def as_json(facts: Facts, path: Path | str) -> str:
    """One JSON object: `status --json` of the search, and what was found. path: the run folder."""
    return dump({**status_json(facts.record, path), **report_json(facts)}) + "\n"


def as_csv(facts: Facts) -> str:
    """A row a trial, the winner first: parameters, ending, cost, and the best value of each objective."""
    fixed = ("trial", "status", "reason", "step", "max_steps", "tokens", "seconds", "ending")
    every = dict.fromkeys(name for trial in facts.record.leaderboard for name in trial.params)
    names = list(every)
    heads = [f"parameter {name}" if name in fixed else name for name in names]
    values = [objective.name for objective in facts.record.objectives]
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    out.writerow([_plain(one) for one in ("trial", *heads, *values, *fixed[1:])])
    for trial in facts.record.leaderboard:
        row: list[Any] = [trial.number, *(_flat(trial.params.get(name, "")) for name in names)]
        row += shown_values(trial, facts.record.objectives)
        row += [trial.state, trial.reason or "", trial.step, trial.max_steps, trial.tokens]
        row += [round(trial.seconds(facts.record.updated or 0.0), 1), trial.ending]
        out.writerow([_plain(one) for one in row])
    return written.getvalue()


def as_markdown(facts: Facts) -> str:
    """The report as text for an issue, a wiki or a pull request; without the plots."""
    record = facts.record
    out = [f"# {_text(record.name or facts.place.name)}", "", _text(" · ".join(facts.headline)), ""]
    out += [f"**Best:** {_text(facts.best)}", ""]
    out += [f"- {_text(label_of(name, facts.labels))}: {_text(words.value(value))}"
            for name, value in (record.best.params if record.best else {}).items()]  # fmt: skip
    out += ["", f"**Noise:** {_text(facts.noise)}", ""]
    out += [f"**Cost:** {_text(', '.join(f'{name} {value}' for name, value in facts.cost.items()))}", ""]
    out += [line for one in facts.found.sentences for line in (f"**Found:** {_text(one)}", "")]
    if facts.next:
        out += ["**Next:**", "", *_code(facts.next)]
    out += ["## Leaderboard", "", *_leaderboard(facts)]
    known = facts.found.importances
    if known:
        rows = [
            (label_of(one.name, facts.labels), words.percent(one.share), f"{words.percent(one.low)} to "
             f"{words.percent(one.high)}", words.whole_percent(one.chance))
            for one in known.parameters
        ]  # fmt: skip
        out += ["## What mattered", "", *_table(("parameter", "importance", "in resamples", "by chance"), rows)]
    if facts.rungs:
        rungs = [
            (str(rung.number), words.whole_percent(rung.share), str(len(rung.values)), str(rung.stopped))
            for rung in facts.rungs
        ]
        out += ["## Rungs", "", *_table(("rung", "of the budget", "compared", "stopped"), rungs)]
    if facts.spending:
        spent = [
            (one.ending, str(one.trials or ""), words.hours(one.seconds),
             words.whole_percent(share_of(facts.spending, one)), words.count(one.tokens))
            for one in facts.spending
        ]  # fmt: skip
        out += ["## Where the time went", ""]
        out += _table(("ending", "trials", "worker-hours", "share", "tokens"), spent)
    out += ["## To run it again", ""]
    for what, command in facts.reproduce.items():
        out += [f"{_text(what)}:", "", *_code([command])]
    return "\n".join(out).rstrip() + "\n"


def _leaderboard(facts: Facts) -> list[str]:
    record = facts.record
    trials = record.leaderboard
    heads = ["trial", *(label_of(name, facts.labels) for name in facts.names)]
    heads += [*(objective.heading for objective in record.objectives), "step", "ending"]
    out = _table(heads, [_row(facts, trial) for trial in trials[:ROWS]])
    left = len(trials) - ROWS
    return [*out, f"{left:,} more trials: `--format csv` has all of them.", ""] if left > 0 else out


def _row(facts: Facts, trial: TrialRecord) -> list[str]:
    params = [words.value(trial.params[name]) if name in trial.params else "" for name in facts.names]
    values = [words.measured(value) for value in shown_values(trial, facts.record.objectives)]
    step = f"{trial.step}/{trial.max_steps}" if trial.max_steps else str(trial.step)
    return [str(trial.number), *params, *values, step, ending(trial)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    told = ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in (heads, *rows)]
    return [told[0], "|" + " --- |" * len(heads), *told[1:], ""]


def _code(commands: Sequence[str]) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", "\n".join(commands))), default=0))
    return [f"{fence}sh", *map(clean, commands), fence, ""]


def _text(text: str) -> str:
    """A text that others wrote, as Markdown shows it."""
    return _STEERS.sub(r"\\\1", shorten(clean(text), _LONGEST * 3))


def _flat(value: Any) -> Any:
    """A parameter in a cell: numbers as they are, all else in words."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else words.value(value)


def _plain(value: Any) -> Any:
    """A cell of CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, int | float):
        return value
    text = clean(str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
