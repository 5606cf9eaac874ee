"""Ends a running search when its budget is spent: tokens, GPU-hours, money, time on the clock, or no more gain.

What is spent is read from the record, so a resume goes on counting. The ending is a line in the ledger like a person's
request to stop. Trials that run then are cut off, and a resume with more continues them; where no trial has ended with
a value yet, they are ended as they are, so that the best of them is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tuner.config import SearchBudget, amounts
from tuner.results.budget import BY, Gains, spent, words
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.scheduling.forecast import Forecast, Pace

EVERY_S = 0.5
"""Seconds between two looks. One goes through all trials for their tokens: 3 ms at 10,000 trials."""
SEEN = 0.1
"""The share of its budget after which the recipe says what a whole trial takes."""


class Budgets:
    """Looks after the budgets of one session; the driver's loop calls `turn` every `EVERY_S` seconds, and the ledger
    `heard` with every event. foresee: what the search is expected to take, by what a trial takes."""

    def __init__(
        self,
        record: SearchRecord,
        ledger: Ledger,
        budget: SearchBudget,
        foresee: Callable[[Pace], Forecast],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record, self._ledger, self._budget, self._foresee = record, ledger, budget, foresee
        self._clock = clock
        self._gains = Gains(record)
        self._event: float | None = None
        self._since = clock()
        self._told = False

    def heard(self, event: Event) -> None:
        """Takes in an ending."""
        if event.event is Kind.ENDED and event.number is not None:
            trial = self._record.trials[event.number]
            if trial.has_ended and trial.ended == event.time:
                self._gains.add(trial)

    def turn(self) -> None:
        """Ends the search if a budget is spent, and says once if one is too small for a whole trial."""
        record = self._record
        if record.stopped:
            return
        if record.updated != self._event:
            self._event, self._since = record.updated, self._clock()
        found = spent(record, self._budget, self._gains, self._clock() - self._since)
        if found is not None:
            details = {"by": BY, "budget": found.kind, "text": found.text}
            self._ledger.append(Kind.STOPPED, details=details)
        elif not self._told:
            self._tell()

    def _tell(self) -> None:
        """A note where the recipe shows that it will not run to its end, with what would do for the whole search."""
        recipe, budget = self._record.recipe, self._budget
        if recipe is None or not recipe.max_steps or recipe.step < SEEN * recipe.max_steps:
            return
        self._told = True
        whole_s = recipe.trained_s * recipe.max_steps / recipe.step
        seen = self._foresee(Pace(whole=whole_s))
        needs: list[str] = []
        if budget.tokens is not None and budget.tokens < recipe.full_tokens:
            needs.append(
                f"search.budget.tokens: {words(budget.tokens)} are fewer than the {words(recipe.full_tokens)} of one "
                f"whole trial; about {words(seen.work.likely * recipe.full_tokens)} would do for {self._trials}"
            )
        before_s = self._record.wall_s - recipe.trained_s
        if budget.wall_time is not None and amounts.seconds(budget.wall_time) < before_s + whole_s:
            needs.append(
                f"search.budget.wall_time: {budget.wall_time} is less than one whole trial takes "
                f"({before_s + whole_s:.0f} s with the start); about {before_s + seen.seconds.likely:.0f} s would do "
                f"for {self._trials}"
            )
        for text in needs:
            self._ledger.append(Kind.NOTE, details={"text": text})

    @property
    def _trials(self) -> str:
        return f"all {self._record.num_trials} trials" if self._record.num_trials > 1 else "it"
