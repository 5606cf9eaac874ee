"""The Ray Tune scheduler: asynchronous successive halving that also consults the rules, and says why.

Ray's ASHA decides at rungs. Around it: a loss that is no number never reaches a rung (there, `nan < cutoff` is False
and lets a NaN pass; None raises and ends the whole search); every stop carries a verdict; rungs are filled again from
the ledger when a search resumes (Ray's own restore leaves them empty).
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket as RayBracket

from tuner.contract import METRIC, Evaluation, Reason, Setup, Verdict
from tuner.scheduling.ladder import Ladder
from tuner.scheduling.rules.base import Reading, Rule
from tuner.scheduling.rules.rung import behind
from tuner.scheduling.wire import REPORT, RESOURCE, TRACEBACK

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class Listener(Protocol):
    """Who is told what was measured and judged; the driver's manager."""

    def key(self, trial_id: str) -> str:
        """What a trial is called at the rungs: the same for every attempt at it, so that it is compared once."""
        ...

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        """The last step on record of this trial, over all attempts that count, and its curve up to there."""
        ...

    def set_up(self, trial_id: str, setup: Setup) -> None: ...

    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, verdict: Verdict | None) -> None: ...

    def repeated(self, trial_id: str) -> None:
        """An evaluation that is on record came once more, from an attempt that began before it."""
        ...

    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None: ...

    def spares(self, trial_id: str) -> bool:
        """Whether this trial goes on past rungs that it would be stopped at; its losses count there all the same."""
        ...

    def leaves(self, trial_id: str) -> bool:
        """Whether this trial's node is about to go. Asked when the trial has reported; it is tried again elsewhere
        then, and its worker is to be ended."""
        ...

    def was_stopped(self, trial_id: str) -> bool:
        """Whether somebody ended this trial while it ran: Ray has to be told."""
        ...

    @property
    def paused(self) -> bool:
        """Whether trials wait where they are."""
        ...


class Asha(AsyncHyperBandScheduler):
    """ASHA with rules. One object judges every trial of a search.

    ladder: where the rungs lie. before, after: rules asked ahead of the rung and behind it. listener: told everything.
    history: for a resume, (key, readings) of every trial in the ledger, which fill the rungs again.
    """

    def __init__(
        self,
        ladder: Ladder,
        *,
        before: Sequence[Rule],
        after: Sequence[Rule],
        listener: Listener,
        history: Iterable[tuple[str, Sequence[Reading]]] = (),
    ) -> None:
        super().__init__(
            time_attr=RESOURCE,
            metric=METRIC,
            mode="min",
            max_t=ladder.max_t,
            grace_period=ladder.grace_period,
            reduction_factor=ladder.reduction_factor,
            brackets=1,
        )
        self._brackets = [_Bracket(ladder)]
        self._ladder, self._before, self._after = ladder, tuple(before), tuple(after)
        self._listener: Listener | None = listener
        self._live: dict[str, Trial] = {}
        self._held: set[str] = set()
        self._dead: set[str] = set()
        for key, readings in history:
            self._replay(key, readings)

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        self._live[trial.trial_id] = trial

    def running(self) -> list[str]:
        """The trials that a worker is at work on; not those that wait for one, or for the end of a pause."""
        live = self._live.items()
        return [name for name, trial in live if trial.status == "RUNNING" and name not in self._held]

    def actors(self) -> dict[str, Any]:
        """The workers of the trials that run, held ones included."""
        found = {name: t.temporary_state.ray_actor for name, t in self._live.items() if t.status == "RUNNING"}
        return {name: actor for name, actor in found.items() if actor is not None}

    def is_held(self, trial_id: str) -> bool:
        """Whether a trial waits for the end of a pause."""
        return trial_id in self._held

    def kill(self, trial_id: str) -> None:
        """Ends a trial's worker as it is; Ray's loop then finds it dead."""
        actor = self._live[trial_id].temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)
            self._dead.add(trial_id)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Judges one report of a worker: its set-up, an evaluation, or a fault."""
        assert self._listener is not None
        report = result[REPORT]
        if self._listener.was_stopped(trial.trial_id):
            return TrialScheduler.STOP
        if isinstance(report, Setup):
            self._listener.set_up(trial.trial_id, report)
            return self._go_on(trial)
        if isinstance(report, Verdict):
            self._listener.ended(trial.trial_id, report, result.get(TRACEBACK, ""))
            return TrialScheduler.STOP
        step, curve = self._listener.known(trial.trial_id)
        if report.step <= step:
            return self._repeated(trial, report)
        resource = self._resource(report)
        curve.append(Reading(resource, report.eval_loss))
        verdict = self._judge(trial, report, curve)
        self._listener.evaluated(trial.trial_id, report, resource, verdict)
        return TrialScheduler.STOP if verdict else self._go_on(trial)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The trial that waits for a worker. Ray's looks for it through every trial there has been, twice a report.

        Ray asks this at every turn of its loop, which makes it the place to act on what was asked meanwhile.
        """
        self._obey(tune_controller)
        return next((t for t in tune_controller.get_live_trials() if t.status in ("PENDING", "PAUSED")), None)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Forgets a trial. Ray's would note its last result at a rung once more, a NaN included."""
        self._forget(trial)
        _empty(trial)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        self._forget(trial)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A worker died without a word: its process was killed, or its node is gone."""
        assert self._listener is not None
        error = _error_text(trial)
        message = f"its worker died ({_last_line(error)})" if error else "its worker died"
        self._listener.ended(trial.trial_id, Verdict(Reason.INFRASTRUCTURE, message), error)
        self._forget(trial)

    def _repeated(self, trial: Trial, evaluation: Evaluation) -> str:
        """A trial that went on from a state before its last evaluation passes that one again: it was judged then."""
        assert self._listener is not None
        self._listener.repeated(trial.trial_id)
        if not evaluation.done:
            return self._go_on(trial)
        self._listener.ended(trial.trial_id, Verdict(Reason.BUDGET, "budget"))
        return TrialScheduler.STOP

    def _go_on(self, trial: Trial) -> str:
        """Lets a trial train on, or has it wait where it is: Ray asks its worker for nothing then."""
        assert self._listener is not None
        if self._listener.leaves(trial.trial_id):
            # Stopped, its worker would be given the next trial. Ray finds it dead when it asks it to go on.
            self.kill(trial.trial_id)
            return TrialScheduler.CONTINUE
        if not self._listener.paused:
            return TrialScheduler.CONTINUE
        self._held.add(trial.trial_id)
        return TrialScheduler.NOOP

    def _obey(self, tune_controller: TuneController) -> None:
        """Takes trials that somebody ended from Ray, and lets those go on that waited for the end of a pause.

        Not before Ray calls them running: a trial that is stopped while its actor is made or reset stays among those
        that Ray believes are being made.
        """
        assert self._listener is not None
        due = self._held if not self._listener.paused else self._held & self._dead
        due = due | {trial_id for trial_id in self._live if self._listener.was_stopped(trial_id)}
        if not due:
            return
        # Ray's wrapper warns of what we need
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        for trial in [trial for trial in controller.get_live_trials() if trial.trial_id in due]:
            if self._listener.was_stopped(trial.trial_id):
                if trial.status == trial.RUNNING:
                    controller.stop_trial(trial)
            else:
                self._held.discard(trial.trial_id)
                controller._schedule_trial_train(trial)

    def _judge(self, trial: Trial, evaluation: Evaluation, curve: Sequence[Reading]) -> Verdict | None:
        for rule in self._before:
            if verdict := rule.judge(curve):
                return verdict
        if evaluation.done:
            return Verdict(Reason.BUDGET, "budget")
        if verdict := self._rung(trial, curve[-1]):
            return verdict
        for rule in self._after:
            if verdict := rule.judge(curve):
                return verdict
        return None

    def _rung(self, trial: Trial, reading: Reading) -> Verdict | None:
        """Asks Ray's ASHA, and puts its answer into words."""
        if not self._ladder.rungs or reading.eval_loss is None:
            return None
        assert self._listener is not None
        key = self._listener.key(trial.trial_id)
        due = self._due(key, reading.resource)
        action = self._brackets[0].on_result(_Place(key), reading.resource, -reading.eval_loss)
        self._mark_passed(key, reading.resource)
        if action != TrialScheduler.STOP or due is None or self._listener.spares(trial.trial_id):
            return None
        rung, needed = due
        return behind(rung, reading.eval_loss, needed)

    def _due(self, key: str, resource: int) -> tuple[int, float] | None:
        """The rung that this report is judged at, counted from 1, and the loss that going on needs there; None where
        no rung is due or nobody has been there yet."""
        bracket = self._brackets[0]
        for index, (milestone, recorded) in enumerate(bracket._rungs):
            if resource >= milestone and key not in recorded:
                cutoff = bracket.cutoff(recorded)
                return None if cutoff is None else (len(bracket._rungs) - index, -float(cutoff))
        return None

    def _replay(self, key: str, readings: Sequence[Reading]) -> None:
        """Notes a trial of an earlier session at the rungs where it was compared then."""
        place = _Place(key)
        for index, reading in enumerate(readings):
            if (
                any(rule.judge(readings[: index + 1]) for rule in self._before)
                or reading.resource >= self._ladder.max_t
            ):
                return
            if self._ladder.rungs and reading.eval_loss is not None:
                self._brackets[0].on_result(place, reading.resource, -reading.eval_loss)
                self._mark_passed(key, reading.resource)

    def _mark_passed(self, key: str, resource: int) -> None:
        """Notes that a trial is past every rung up to `resource`. Where one evaluation passes two rungs, Ray compares
        at the higher and would take the trial's next, later loss for the lower; a NaN stands there and counts for
        nothing in the cut-off."""
        for milestone, recorded in self._brackets[0]._rungs:
            if resource >= milestone and key not in recorded:
                recorded[key] = math.nan

    def _resource(self, evaluation: Evaluation) -> int:
        """A trial's place on the ladder: its share of its own steps, of the whole budget. For a budget in steps that
        is the step itself; for one in tokens it makes trials of different batch sizes meet at the same rungs."""
        return round(self._ladder.max_t * evaluation.step / max(1, evaluation.max_steps))

    def _forget(self, trial: Trial) -> None:
        self._trial_info.pop(trial.trial_id, None)
        self._live.pop(trial.trial_id, None)
        self._held.discard(trial.trial_id)
        self._dead.discard(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_listener": None,
            "_live": {},
        }  # Ray pickles its tuner; the trial manager holds open files


def _empty(trial: Trial) -> None:
    """Drops what Ray keeps of a trial's metrics and nobody asks for: 27 kB of running means and of its last result, in
    a list that only grows."""
    metadata = trial.run_metadata
    metadata.metric_analysis, metadata.metric_n_steps, metadata.last_result = {}, {}, {}


class _Rung(dict[str, float]):
    """The losses recorded at a rung, negated as Ray has them, by trial; in order beside it. Nothing is taken out."""

    def __init__(self, rewards: Mapping[str, float] | None = None) -> None:
        super().__init__(rewards or {})
        self._ascending = sorted(reward for reward in self.values() if not math.isnan(reward))

    def __setitem__(self, trial_id: str, reward: float) -> None:
        super().__setitem__(trial_id, reward)
        if not math.isnan(reward):
            insort(self._ascending, reward)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Rung, (dict(self),)

    def quantile(self, share: float) -> float:
        """numpy's `nanpercentile` to the last bit, which sorts all of them for every report: 1 ms at 10,000 trials."""
        if not self._ascending:
            return math.nan
        place = (len(self._ascending) - 1) * share
        low = self._ascending[math.floor(place)]
        high = self._ascending[min(math.floor(place) + 1, len(self._ascending) - 1)]
        past = place - math.floor(place)
        return high - (high - low) * (1 - past) if past >= 0.5 else low + (high - low) * past


class _Bracket(RayBracket):
    """Ray's bracket over rungs that know their order."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__(ladder.grace_period, ladder.max_t, ladder.reduction_factor, 0)
        self._rungs: list[tuple[float, _Rung]] = [(milestone, _Rung()) for milestone, _ in self._rungs]

    def cutoff(self, recorded: _Rung) -> float | None:
        return recorded.quantile(1 - 1 / self.rf) if recorded else None


class _Place:
    """What Ray's bracket wants of a trial: its id."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def _error_text(trial: Trial) -> str:
    """What Ray noted of a worker's death. Read from the driver's own copy: the one in storage comes later."""
    name = trial.run_metadata.error_filename
    path = Path(trial.local_path or "", name) if name else None
    return path.read_text(encoding="utf-8", errors="replace") if path and path.is_file() else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split(" Some common causes")[0][:240] if lines else ""
