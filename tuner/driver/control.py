"""Carries out in the driver's loop what people ask of a running search: stop, add, pause, resume.

Requests are files in the run folder, looked for every `EVERY_S` seconds. What is done is written into the ledger before
the request is answered; the trial manager reads it from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tuner.contract import InputError
from tuner.driver.plan import Plan
from tuner.driver.trial_manager import TrialManager
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.requests import Inbox, Request
from tuner.results.trial import TrialRecord
from tuner.space.own import own_point
from tuner.space.parameters import shown

EVERY_S = 0.2
"""Seconds between two looks into the folder."""
BY = "user"
"""Who asked, as the ledger has it."""


class Control:
    """Answers the requests of one session of a search; the driver's loop calls `turn` every `EVERY_S` seconds."""

    def __init__(
        self, folder: RunFolder, manager: TrialManager, ledger: Ledger, record: SearchRecord, plan: Plan
    ) -> None:
        self._folder, self._manager, self._ledger, self._record, self._plan = folder, manager, ledger, record, plan
        self._actions: Mapping[str, Callable[[Request], str]] = {
            "stop": self._stop,
            "add": self._add,
            "pause": self._pause,
            "resume": self._resume,
        }
        self._inbox = Inbox(folder, self._note)
        self._inbox.clear()

    def turn(self) -> None:
        """Carries out and answers the requests that have come."""
        for request in self._inbox.take():
            try:
                self._inbox.answer(request.name, message=self._carry_out(request))
            except InputError as error:
                self._inbox.answer(request.name, error=error)

    def _note(self, text: str) -> None:
        self._ledger.append(Kind.NOTE, details={"text": text})

    def _carry_out(self, request: Request) -> str:
        action = self._actions.get(request.action)
        if action is None:
            raise InputError(f"no action {request.action!r}", expected=f"one of {', '.join(self._actions)}")
        if self._manager.stopping:
            raise InputError(f"the search {self._folder.name!r} is ending", where=str(self._folder.path))
        return action(request)

    def _stop(self, request: Request) -> str:
        number = request.values.get("trial")
        if number is None:
            running, recipe = self._running(), _of_recipe(self._record.recipe)
            self._ledger.append(Kind.STOPPED, details={"by": BY})
            return f"{self._folder.name} ends: {running} stopped, the best kept{recipe}"
        trial = self._trial(number)
        if not (trial.is_running or trial.parked):
            raise InputError(f"trial {number} has ended ({trial.ending})", where=f"trial {number}")
        later = "" if trial.parked else "; its worker is free when the step it is in is over"
        self._manager.stop_trial(trial.number)
        at = f" at step {trial.step}" if trial.step else ""
        return f"trial {number} is stopped{at}{later}"

    def _add(self, request: Request) -> str:
        given, like = request.values.get("params"), request.values.get("like")
        if not isinstance(given, Mapping) or not (given or like is not None):
            raise InputError("nothing to add", expected="--set parameter=value, or --like NUMBER")
        before = {} if like is None else self._trial(like).params
        plan = self._plan
        point = own_point(plan.space, given, before, plan.experiment.settings, plan.program)
        self._ledger.append(Kind.ADDED, params=point, details={"name": request.name, "by": BY})
        told = ", ".join(f"{name}={shown(value)}" for name, value in point.items())
        rest = [name for name in plan.space.parameters if name not in point]
        drawn = "; the sampler draws the rest" if rest else ""
        return f"added: {told}{drawn}; it starts when a worker is free"

    def _pause(self, request: Request) -> str:
        if self._record.paused:
            return f"{self._folder.name} is paused already ({self._record.paused})"
        self._ledger.append(Kind.PAUSED, details={"why": "by you"})
        return f"{self._folder.name} is paused: {self._running()} waiting from the next evaluation on, none starts"

    def _resume(self, request: Request) -> str:
        if not self._record.paused:
            return f"{self._folder.name} was not paused"
        self._ledger.append(Kind.RESUMED)
        return f"{self._folder.name} goes on"

    def _running(self) -> str:
        running = len(self._record.running)
        return f"{running} running trial{'' if running == 1 else 's'}"

    def _trial(self, number: Any) -> Any:
        trial = self._record.trials.get(number) if isinstance(number, int) else None
        if trial is None:
            last = max(self._record.trials, default=None)
            expected = f"0 to {last}" if last is not None else "none has started yet"
            raise InputError(f"there is no trial {number}", where=self._folder.name, expected=expected)
        return trial


def _of_recipe(recipe: TrialRecord | None) -> str:
    """What becomes of a recipe that runs while the search is stopped, for the person who stops it."""
    if recipe is None or not recipe.is_running:
        return ""
    if recipe.best_value is None:
        return "; the recipe has no value yet, and a resume runs it again"
    return f"; the recipe stays at step {recipe.step}, and a resumed search is compared with that"
