"""What a search may spend, and which of it is spent: from its record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tuner.config import NoMoreGain, SearchBudget, amounts
from tuner.contract import InputError
from tuner.results.records import SearchRecord
from tuner.results.trial import TrialRecord

BY = "budget"
"""Who stopped the search, as the ledger has it."""


@dataclass(frozen=True)
class Spent:
    """A budget that is spent."""

    kind: str
    """Its key in `search.budget`."""
    text: str
    """It, in words: "the budget of 20M tokens is spent"."""


def spent(record: SearchRecord, budget: SearchBudget, gains: Gains | None = None, later_s: float = 0.0) -> Spent | None:
    """The first budget that is spent; None where none is. gains: of the record's ended trials; None to look through
    all of them. later_s: seconds that have passed since the record's last event, in a running session."""
    if budget.tokens is not None and record.tokens >= budget.tokens:
        return Spent("tokens", f"the budget of {words(budget.tokens)} tokens is spent")
    held_s = record.held_gpu_s + later_s * record.workers * record.gpus
    if budget.gpu_hours is not None and held_s / 3600 >= budget.gpu_hours:
        return Spent("gpu_hours", f"the budget of {budget.gpu_hours:g} GPU-hours is spent")
    price = record.price_per_gpu_hour
    if budget.money is not None and price is not None and held_s / 3600 * price >= budget.money:
        return Spent("money", f"the budget of {budget.money:g} is spent ({price:g} a GPU-hour)")
    wall_s = record.wall_s + later_s
    if budget.wall_time is not None and wall_s >= amounts.seconds(budget.wall_time):
        return Spent("wall_time", f"the budget of {budget.wall_time} on the clock is spent")
    if budget.until is None:
        return None
    told = (gains or Gains(record)).ends(budget.until, wall_s)
    return Spent("until", told) if told else None


class Gains:
    """How the best value of a search improved, ending by ending."""

    def __init__(self, record: SearchRecord) -> None:
        self._objective = record.objective
        self._best: list[tuple[float, float | None]] = []
        """By ended trial, the first one first: when it ended, in seconds of the search, and the best value by then."""
        for trial in sorted(record.ended, key=lambda one: one.ended_at):
            self.add(trial)

    def add(self, trial: TrialRecord) -> None:
        """Takes in a trial that has ended after all others."""
        own = trial.best_value if trial.is_usable else None
        before = self._best[-1][1] if self._best else None
        self._best.append((trial.ended_at, self._objective.best_of((before, own))))

    def ends(self, until: NoMoreGain, wall_s: float) -> str:
        """Why the search is to end after `wall_s` seconds, in words; "" where it is not."""
        if isinstance(until.next, int):
            last = f"the last {until.next} trials" if until.next > 1 else "the last trial"
            since = len(self._best) - until.next
            before = self._best[since - 1][1] if since > 0 else None
        else:
            last, begin = f"the last {until.next}", wall_s - amounts.seconds(until.next)
            before = next((best for at, best in reversed(self._best) if at <= begin), None)
        if before is None:
            return ""
        now = self._best[-1][1]
        gained = self._objective.gain(now, before) if now is not None else 0.0
        if gained is None or gained >= until.gain_below:
            return ""
        return f"{last} gained {_percent(gained)}, less than {_percent(until.gain_below)}"


def merged(before: SearchBudget, given: Mapping[str, Any], where: str) -> SearchBudget:
    """A budget with some of its amounts changed. Raises InputError for one that is none."""
    try:
        return SearchBudget.model_validate({**before.model_dump(exclude_none=True), **given}, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"]))
        raise InputError(
            f"search.budget.{key}: got {found['input']!r:.80}", where=where, expected=found["msg"]
        ) from error


def words(tokens: float) -> str:
    """20_000_000 is "20M", 1_234_567 is "1.23M"."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= factor:
            return f"{tokens / factor:.3g}{unit}"
    return f"{tokens:.0f}"


def _percent(share: float) -> str:
    return f"{share * 100:.2g}%" if math.isfinite(share) else "nothing"


def more(record: SearchRecord) -> str:
    """What gives a search more of the budget that ended it, as `--budget` takes it: "tokens=40M"; "" where none did."""
    given = record.budget.get(record.spent_of)
    match record.spent_of:
        case "until":
            return "until=null"
        case "tokens" if isinstance(given, int):
            return f"tokens={words(2 * given)}"
        case "wall_time" if isinstance(given, str):
            return f"wall_time={_duration(2 * amounts.seconds(given))}"
        case "gpu_hours" | "money" if isinstance(given, int | float):
            return f"{record.spent_of}={2 * given:g}"
    return ""


def _duration(seconds: float) -> str:
    for factor, unit in ((3600, "h"), (60, "min")):
        if seconds >= factor:
            return f"{seconds / factor:.3g}{unit}"
    return f"{seconds:.3g}s"
