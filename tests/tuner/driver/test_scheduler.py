"""Our Ray scheduler, called directly: no cluster, but Ray's own classes. Its decisions are in scheduling/algorithms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from tests.programs.parking import Parking
from tuner.config import Asha
from tuner.contract import EVAL_LOSS, Evaluation, Reason, Setup, Verdict
from tuner.driver.scheduler import TuneScheduler
from tuner.scheduling.algorithms import PAUSE, AlgorithmContext, Decision, make_algorithm
from tuner.scheduling.judge import Judge
from tuner.scheduling.ladder import make_ladder
from tuner.scheduling.rules import Reading
from tuner.scheduling.wire import to_result

LADDER = make_ladder(100, grace_period=4, reduction_factor=3, warmup=0.0, eval_every=0.1)


@dataclass
class Heard:
    """A listener that keeps all that it is told."""

    spared: set[str] = field(default_factory=set)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    resources: list[int] = field(default_factory=list)
    curves: dict[str, list[tuple[int, Reading]]] = field(default_factory=dict)

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, trial_id: str) -> int:
        return self.numbers.setdefault(trial_id, len(self.numbers))

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        curve = self.curves.get(trial_id, [])
        return (curve[-1][0] if curve else 0), [reading for _, reading in curve]

    def repeated(self, trial_id: str) -> None: ...

    stopped: set[str] = field(default_factory=set)
    paused: bool = False

    def set_up(self, trial_id: str, setup: Setup) -> None: ...

    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, decision: Decision) -> None:
        self.resources.append(resource)
        reading = Reading(resource, evaluation.eval_loss)
        self.curves.setdefault(trial_id, []).append((evaluation.step, reading))
        self.decisions[trial_id] = decision
        if decision.verdict:
            self.verdicts[trial_id] = decision.verdict

    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None:
        self.verdicts[trial_id] = verdict

    def spares(self, trial_id: str) -> bool:
        return trial_id in self.spared

    def drains(self, trial_id: str) -> bool:
        return False

    def was_stopped(self, trial_id: str) -> bool:
        return trial_id in self.stopped


def scheduler(heard: Heard) -> TuneScheduler:
    return TuneScheduler(Judge(make_algorithm(Asha(), LADDER, EVAL_LOSS)), heard)


def report(asked: TuneScheduler, name: str, step: int, loss: float | None, max_steps: int = 100) -> str:
    trial: Any = SimpleNamespace(trial_id=name)
    if name not in asked._live:
        asked.on_trial_add(None, trial)  # type: ignore[arg-type]
    return asked.on_trial_result(None, trial, to_result(Evaluation(step, max_steps, loss)))  # type: ignore[arg-type]


def test_a_stop_is_told_with_its_verdict() -> None:
    heard = Heard()
    asked = scheduler(heard)
    told = [report(asked, name, 4, loss) for name, loss in [("a", 5.0), ("b", 5.5), ("c", 4.0)]]
    assert told == [TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.CONTINUE]
    assert heard.verdicts == {"b": Verdict(Reason.RUNG, "rung 1 (5.500, needed 5.000)")}


def test_a_parked_trial_gives_its_worker_back() -> None:
    heard = Heard(spared={"recipe"})
    asked = TuneScheduler(Judge(Parking(AlgorithmContext(EVAL_LOSS, 100), 4)), heard)
    assert report(asked, "recipe", 4, 3.0) == TrialScheduler.CONTINUE
    assert report(asked, "a", 4, 2.0) == TrialScheduler.STOP
    assert heard.decisions["a"] == PAUSE and not heard.verdicts
    assert report(asked, "a", 20, 2.0) == TrialScheduler.CONTINUE, "it has been compared there"


def test_the_recipe_is_spared() -> None:
    asked = scheduler(Heard(spared={"recipe"}))
    report(asked, "a", 4, 3.0)
    assert report(asked, "recipe", 4, 5.0) == TrialScheduler.CONTINUE


def test_trials_of_different_lengths_meet_at_the_same_rungs() -> None:
    heard = Heard()
    asked = scheduler(heard)
    report(asked, "long", 40, 3.0, max_steps=1000)
    report(asked, "short", 2, 3.5, max_steps=50)
    assert heard.resources == [4, 4] and heard.verdicts["short"].reason is Reason.RUNG


def test_a_fault_reported_by_the_worker_ends_the_trial() -> None:
    heard = Heard()
    asked = scheduler(heard)
    trial: Any = SimpleNamespace(trial_id="a")
    asked.on_trial_add(None, trial)  # type: ignore[arg-type]
    fault = Verdict(Reason.FROZEN, "nothing is trainable", "hand SFTTrainer the base")
    assert asked.on_trial_result(None, trial, to_result(fault)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert heard.verdicts["a"] == fault


def test_an_evaluation_on_record_is_judged_once() -> None:
    heard = Heard()
    asked = scheduler(heard)
    report(asked, "a", 4, 5.0)
    assert report(asked, "a", 4, 9.0) == TrialScheduler.CONTINUE, "trained again up to what is known"
    assert heard.resources == [4]
    assert report(asked, "a", 100, 3.0) == TrialScheduler.STOP
    heard.verdicts.clear()
    assert report(asked, "a", 100, 3.0) == TrialScheduler.STOP
    assert heard.verdicts["a"].reason is Reason.BUDGET


def test_in_a_pause_a_trial_is_judged_and_then_waits() -> None:
    heard = Heard(paused=True)
    asked = scheduler(heard)
    assert report(asked, "a", 4, 4.0) == TrialScheduler.NOOP
    assert report(asked, "b", 4, math.nan) == TrialScheduler.STOP
    heard.stopped.add("a")
    assert report(asked, "a", 8, 3.0) == TrialScheduler.STOP
    assert heard.resources == [4, 4], "a report of a stopped trial is not noted"


def test_the_trial_that_waits_is_found_among_the_live_ones() -> None:
    def trial(status: str) -> Any:
        return SimpleNamespace(status=status)

    ended, running, waiting = trial("TERMINATED"), trial("RUNNING"), trial("PENDING")
    asked = scheduler(Heard())
    for live, expected in [([], None), ([running], None), ([running, waiting], waiting)]:
        controller: Any = SimpleNamespace(get_trials=lambda: [ended], get_live_trials=lambda live=live: live)
        assert asked.choose_trial_to_run(controller) is expected


def test_what_ray_keeps_of_an_ended_trial_does_not_pile_up() -> None:
    trial = Trial("toy", trial_id="a", stub=True, _setup_default_resource=False)
    asked = scheduler(Heard())
    asked.on_trial_add(None, trial)  # type: ignore[arg-type]
    result = to_result(Evaluation(4, 100, 3.0))
    trial.update_last_result({**result, "training_iteration": 1})
    asked.on_trial_result(None, trial, result)  # type: ignore[arg-type]
    assert trial.metric_analysis and trial.last_result
    asked.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
    assert not trial.metric_analysis and not trial.metric_n_steps and set(trial.last_result) <= {"trial_id"}
