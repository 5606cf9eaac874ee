"""The scheduler, asked directly: no cluster, but Ray's own classes."""

from __future__ import annotations

import math
import pickle
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from tuner.contract import Evaluation, Reason, Setup, Verdict
from tuner.driver.scheduler import Asha
from tuner.scheduling.ladder import make_ladder
from tuner.scheduling.rules import Diverged, Flatline, Missing, Reading
from tuner.scheduling.wire import to_result

LADDER = make_ladder(100, grace_period=4, reduction_factor=3, warmup=0.0, eval_every=0.1)


@dataclass
class Heard:
    """A listener that keeps what it heard."""

    spared: set[str] = field(default_factory=set)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    resources: list[int] = field(default_factory=list)
    curves: dict[str, list[tuple[int, Reading]]] = field(default_factory=dict)

    def key(self, trial_id: str) -> str:
        return trial_id

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        curve = self.curves.get(trial_id, [])
        return (curve[-1][0] if curve else 0), [reading for _, reading in curve]

    def repeated(self, trial_id: str) -> None: ...

    stopped: set[str] = field(default_factory=set)
    paused: bool = False

    def set_up(self, trial_id: str, setup: Setup) -> None: ...

    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, verdict: Verdict | None) -> None:
        self.resources.append(resource)
        reading = Reading(resource, evaluation.eval_loss)
        self.curves.setdefault(trial_id, []).append((evaluation.step, reading))
        if verdict:
            self.verdicts[trial_id] = verdict

    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None:
        self.verdicts[trial_id] = verdict

    def spares(self, trial_id: str) -> bool:
        return trial_id in self.spared

    def leaves(self, trial_id: str) -> bool:
        return False

    def was_stopped(self, trial_id: str) -> bool:
        return trial_id in self.stopped


def scheduler(heard: Heard, history: Any = ()) -> Asha:
    return Asha(LADDER, before=(Missing(), Diverged(2.0)), after=(Flatline(),), listener=heard, history=history)


def report(asha: Asha, name: str, step: int, loss: float | None, max_steps: int = 100) -> str:
    trial: Any = SimpleNamespace(trial_id=name)
    if name not in asha._trial_info:
        asha.on_trial_add(None, trial)  # type: ignore[arg-type]
    return asha.on_trial_result(None, trial, to_result(Evaluation(step, max_steps, loss)))  # type: ignore[arg-type]


def test_a_trial_behind_is_stopped_with_what_it_needed() -> None:
    heard = Heard()
    asha = scheduler(heard)
    for name, loss in [("a", 5.0), ("b", 5.5), ("c", 4.0)]:
        report(asha, name, 4, loss)
    assert heard.verdicts["b"] == Verdict(Reason.RUNG, "rung 1 (5.500, needed 5.000)")
    assert set(heard.verdicts) == {"b"}
    report(asha, "c", 12, 3.0)
    report(asha, "a", 12, 4.9)
    assert heard.verdicts["a"].message == "rung 2 (4.900, needed 3.000)"


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_ends_its_trial_and_leaves_the_rungs_alone(loss: float | None) -> None:
    heard = Heard()
    asha = scheduler(heard)
    assert report(asha, "bad", 4, loss) == TrialScheduler.STOP
    assert heard.verdicts["bad"].reason is (Reason.ERROR if loss is None else Reason.DIVERGED)
    assert all(not recorded for _, recorded in asha._brackets[0]._rungs)
    assert report(asha, "good", 4, 3.0) == TrialScheduler.CONTINUE


def test_the_last_step_completes_whatever_the_curve() -> None:
    heard = Heard()
    asha = scheduler(heard)
    for step in (4, 12, 20, 36, 100):
        report(asha, "a", step, 5.0 - step / 100)
    assert heard.verdicts["a"].reason is Reason.BUDGET


def test_a_spared_trial_passes_rungs_and_counts_there() -> None:
    heard = Heard(spared={"recipe"})
    asha = scheduler(heard)
    report(asha, "a", 4, 3.0)
    assert report(asha, "recipe", 4, 5.0) == TrialScheduler.CONTINUE
    assert {len(recorded) for milestone, recorded in asha._brackets[0]._rungs if milestone == 4} == {2}


def test_trials_of_different_lengths_meet_at_the_same_rungs() -> None:
    heard = Heard()
    asha = scheduler(heard)
    report(asha, "long", 40, 3.0, max_steps=1000)
    report(asha, "short", 2, 3.5, max_steps=50)
    assert heard.resources == [4, 4] and heard.verdicts["short"].reason is Reason.RUNG


def test_a_fault_reported_by_the_worker_ends_the_trial() -> None:
    heard = Heard()
    asha = scheduler(heard)
    trial: Any = SimpleNamespace(trial_id="a")
    asha.on_trial_add(None, trial)  # type: ignore[arg-type]
    fault = Verdict(Reason.FROZEN, "nothing is trainable", "hand SFTTrainer the base")
    assert asha.on_trial_result(None, trial, to_result(fault)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert heard.verdicts["a"] == fault


def test_on_plain_losses_it_decides_as_rays_asha_does() -> None:
    rng = random.Random(7)
    for _ in range(20):
        heard = Heard()
        ours = Asha(LADDER, before=(), after=(), listener=heard)
        stock = AsyncHyperBandScheduler(
            time_attr="t", metric="loss", mode="min", max_t=100, grace_period=4, reduction_factor=3
        )
        running = {f"t{i}": 0 for i in range(12)}
        for name in running:
            stock.on_trial_add(None, SimpleNamespace(trial_id=name))  # type: ignore[arg-type]
        while running:
            name = rng.choice(sorted(running))
            running[name] = step = min(100, next(s for s in (4, 8, 12, 20, 30, 36, 60, 100) if s > running[name]))
            loss = rng.uniform(1, 9)
            ours_says = report(ours, name, step, loss)
            result = {"t": step, "loss": loss}
            stock_says = stock.on_trial_result(None, SimpleNamespace(trial_id=name), result)  # type: ignore[arg-type]
            assert ours_says == stock_says
            if ours_says == TrialScheduler.STOP:
                del running[name]


def test_rungs_are_filled_again_from_the_ledger() -> None:
    first = Heard()
    asha = scheduler(first)
    history: dict[str, list[Reading]] = {}
    rng = random.Random(3)
    for name in "abcdefgh":
        for step in (4, 12, 36):
            loss = rng.uniform(2, 6)
            history.setdefault(name, []).append(Reading(step, loss))
            if report(asha, name, step, loss) == TrialScheduler.STOP:
                break
    resumed = scheduler(Heard(), history.items())
    before = [(m, sorted(r.values())) for m, r in asha._brackets[0]._rungs]
    assert all(math.isfinite(loss) for _, losses in before for loss in losses)
    after = [(m, sorted(r.values())) for m, r in resumed._brackets[0]._rungs]
    assert before == after


def test_an_evaluation_past_two_rungs_leaves_no_late_loss_at_the_lower() -> None:
    heard = Heard()
    asha = scheduler(heard)
    for step, loss in [(1, 4.0), (2, 3.5), (3, 3.2)]:  # of 4 steps: a quarter of the budget passes rungs 4 and 12
        report(asha, "short", step, loss, max_steps=4)
    assert report(asha, "long", 4, 4.9) == TrialScheduler.CONTINUE
    assert not heard.verdicts


def test_an_evaluation_on_record_is_judged_once() -> None:
    heard = Heard()
    asha = scheduler(heard)
    report(asha, "a", 4, 5.0)
    before = list(asha._brackets[0]._rungs[-1][1].items())
    assert report(asha, "a", 4, 9.0) == TrialScheduler.CONTINUE, "trained again up to what is known"
    assert heard.resources == [4] and list(asha._brackets[0]._rungs[-1][1].items()) == before
    assert report(asha, "a", 100, 3.0) == TrialScheduler.STOP
    heard.verdicts.clear()
    assert report(asha, "a", 100, 3.0) == TrialScheduler.STOP
    assert heard.verdicts["a"].reason is Reason.BUDGET


def test_in_a_pause_a_trial_is_judged_and_then_waits() -> None:
    heard = Heard(paused=True)
    asha = scheduler(heard)
    assert report(asha, "a", 4, 4.0) == TrialScheduler.NOOP
    assert report(asha, "b", 4, math.nan) == TrialScheduler.STOP
    heard.stopped.add("a")
    assert report(asha, "a", 8, 3.0) == TrialScheduler.STOP
    assert heard.resources == [4, 4], "a report of a stopped trial is not noted"


@pytest.mark.parametrize("reduction_factor", [2, 2.5, 3, 4])
def test_a_rungs_cut_off_is_rays_to_the_last_bit(reduction_factor: float) -> None:
    rng = random.Random(5)
    ladder = make_ladder(100, grace_period=4, reduction_factor=reduction_factor, warmup=0.0, eval_every=0.1)
    ours = Asha(ladder, before=(), after=(), listener=Heard())._brackets[0]
    rays = AsyncHyperBandScheduler(
        max_t=100, grace_period=4, reduction_factor=reduction_factor
    )._brackets[0]  # fmt: skip
    assert [milestone for milestone, _ in ours._rungs] == [milestone for milestone, _ in rays._rungs]
    recorded = ours._rungs[-1][1]
    assert ours.cutoff(recorded) is None
    for number in range(300):
        recorded[f"t{number}"] = math.nan if number and rng.random() < 0.2 else rng.uniform(-9, 0)
        assert ours.cutoff(recorded) == rays.cutoff(dict(recorded))
    again = pickle.loads(pickle.dumps(recorded))
    again["new"] = recorded["new"] = -1.0
    assert list(again) == list(recorded) and ours.cutoff(again) == ours.cutoff(recorded)


def test_the_trial_that_waits_is_found_among_the_live_ones() -> None:
    def trial(status: str) -> Any:
        return SimpleNamespace(status=status)

    ended, running, waiting = trial("TERMINATED"), trial("RUNNING"), trial("PENDING")
    asha = scheduler(Heard())
    for live, expected in [([], None), ([running], None), ([running, waiting], waiting)]:
        controller: Any = SimpleNamespace(get_trials=lambda: [ended], get_live_trials=lambda live=live: live)
        assert asha.choose_trial_to_run(controller) is expected


def test_what_ray_keeps_of_an_ended_trial_does_not_pile_up() -> None:
    trial = Trial("toy", trial_id="a", stub=True, _setup_default_resource=False)
    asha = scheduler(Heard())
    asha.on_trial_add(None, trial)  # type: ignore[arg-type]
    result = to_result(Evaluation(4, 100, 3.0))
    trial.update_last_result({**result, "training_iteration": 1})
    asha.on_trial_result(None, trial, result)  # type: ignore[arg-type]
    assert trial.metric_analysis and trial.last_result
    asha.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
    assert not trial.metric_analysis and not trial.metric_n_steps and set(trial.last_result) <= {"trial_id"}
