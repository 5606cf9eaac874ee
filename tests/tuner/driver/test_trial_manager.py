"""The trial manager without Ray: a real ledger, a real study, and faults in every order."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import invariants
from tests.programs.parking import Parking
from tuner.config import load_experiment
from tuner.contract import CHECKPOINT_REQUEST, EVAL_LOSS, STATE, Evaluation, Fit, Reason, Setup, Verdict
from tuner.disks import Trouble
from tuner.driver.disk_guard import DiskGuard
from tuner.driver.dispatch import Terms, readings
from tuner.driver.plan import make_plan
from tuner.driver.retries import IN_A_ROW, Streak, again
from tuner.driver.stopping import Stopping
from tuner.driver.trial_manager import TrialManager
from tuner.driver.watchdog import Watchdog
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger, read_ledger
from tuner.results.records import SearchRecord, TrialRecord
from tuner.results.trial import Point
from tuner.scheduling.algorithms import CONTINUE, PAUSE, AlgorithmContext, Candidate, Decision, stop
from tuner.scheduling.judge import Judge
from tuner.scheduling.rules import Reading
from tuner.study.study import Study
from tuner.watch.naming import Naming

SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}
LOST = Verdict(Reason.INFRASTRUCTURE, "its worker died")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., tuple[TrialManager, SearchRecord]]]:
    """Opens the manager of a run folder; each call is another driver."""
    flags = {"run.program": "tests.programs.toy:Toy", "search.space": SPACE, "run.storage_path": str(tmp_path)}
    plan = make_plan(load_experiment(None, (), flags))
    ledgers: list[Ledger] = []

    def make(watchdog: Watchdog | None = None) -> tuple[TrialManager, SearchRecord]:
        folder = RunFolder(tmp_path)
        record = folder.record()
        ledger = Ledger(folder.ledger, [record.apply])
        ledgers.append(ledger)
        ledger.append(Kind.SEARCH, details={"name": "run", "num_trials": 3})

        def study() -> Study:
            return Study(
                folder.study, name="run", space=plan.space, sampler=plan.experiment.search.sampler, num_trials=3,
                seed=0, recipe=plan.recipe, records=record.trials.values(),
            )  # fmt: skip

        disk = DiskGuard(folder.path, 0, say=lambda text: None, note=lambda text: None, stopping=lambda: False)
        judge = Judge(
            Parking(AlgorithmContext(EVAL_LOSS, 27), 14), ((t.number, readings(t)) for t in record.trials.values())
        )
        terms = Terms(seed=0, evaluate_at=(0.5, 1.0), keep_adapters=3, save_state_at=judge.parks_at)
        manager = TrialManager(
            folder=folder, ledger=ledger, record=record, study=study, judge=judge, terms=terms, naming=Naming(),
            disk=disk, watchdog=watchdog or Watchdog(None), stop=Stopping(record, disk),
        )  # fmt: skip
        manager.write_pending_endings()
        return manager, record

    yield make
    for ledger in ledgers:
        ledger.close()


def begun(manager: TrialManager, name: str) -> Any:
    config = manager.suggest(name)
    assert config is not None
    return config["trial"].assignment


def lines(folder: Path) -> int:
    return len(list(read_ledger(folder / "trials.jsonl")))


def test_a_trial_leaves_its_node_as_often_as_it_must(opened: Any, tmp_path: Path) -> None:
    """More often than a trial may be lost; each attempt is asked for a state, and none counts as lost."""
    manager, record = opened()
    for attempt in range(1, 6):
        assignment = begun(manager, f"a{attempt}")
        assert (assignment.number, assignment.attempt) == (0, attempt)
        assert not manager.drains(f"a{attempt}")
        manager.set_up(f"a{attempt}", Setup(27, 10, 1000, resumed_step=attempt - 1))
        manager.drain(f"a{attempt}")
        assert Path(assignment.folder, STATE, CHECKPOINT_REQUEST).exists() and record.trials[0].is_running
        manager.evaluated(f"a{attempt}", Evaluation(attempt, 27, 3.0), attempt, CONTINUE)
        assert manager.drains(f"a{attempt}")
        manager.ended(f"a{attempt}", LOST)  # its worker was ended, which Ray takes for a loss
        assert record.trials[0].losses == {"drained": attempt} and not record.trials[0].has_ended
    assert [point.step for point in record.trials[0].points] == [1, 2, 3, 4, 5]
    assert begun(manager, "b").resume.step == 5


def test_an_attempt_that_was_replaced_counts_for_nothing(opened: Any, tmp_path: Path) -> None:
    manager, record = opened()
    first = begun(manager, "a")
    manager.set_up("a", Setup(27, 10, 1000))
    manager.evaluated("a", Evaluation(14, 27, 3.0), 14, CONTINUE)
    manager.ended("a", LOST)
    second = begun(manager, "b")
    assert (second.number, second.attempt, second.resume.step, second.resume.folders) == (0, 2, 14, (first.folder,))
    assert second.folder != first.folder
    before = lines(tmp_path)
    manager.set_up("a", Setup(27, 10, 1000))
    manager.evaluated("a", Evaluation(20, 27, 0.1), 20, CONTINUE)
    manager.ended("a", Verdict(Reason.BUDGET, "budget"))
    manager.lost("a", error=True)
    assert lines(tmp_path) == before and record.trials[0].curve == [3.0]
    manager.set_up("b", Setup(27, 10, 1000, resumed_step=14))
    manager.evaluated("b", Evaluation(27, 27, 2.0), 27, stop(Verdict(Reason.BUDGET, "budget")))
    assert record.trials[0].curve == [3.0, 2.0] and record.trials[0].reason is Reason.BUDGET
    invariants.check_ledger(tmp_path)


def test_a_verdict_outlives_the_driver_that_could_not_write_the_ending(opened: Any, tmp_path: Path) -> None:
    manager, record = opened()
    begun(manager, "a")
    manager.set_up("a", Setup(27, 10, 1000))
    manager.evaluated("a", Evaluation(14, 27, 3.0), 14, stop(Verdict(Reason.RUNG, "rung 1 (3.000, needed 2.000)")))
    ledger = tmp_path / "trials.jsonl"
    whole = ledger.read_text().splitlines(keepends=True)
    assert '"event":"ended"' in whole[-1]
    ledger.write_text("".join(whole[:-1]))
    manager, record = opened()
    trial = record.trials[0]
    assert (trial.reason, trial.message, trial.attempt) == (Reason.RUNG, "rung 1 (3.000, needed 2.000)", 1)
    assert begun(manager, "b").number == 1
    invariants.check_ledger(tmp_path)


def test_a_trial_that_a_person_stops_is_over_before_ray_hears_of_it(opened: Any, tmp_path: Path) -> None:
    manager, record = opened()
    begun(manager, "a")
    assert not manager.was_stopped("a")
    manager.stop_trial(0)
    assert manager.was_stopped("a") and record.trials[0].reason is Reason.USER
    before = lines(tmp_path)
    manager.evaluated("a", Evaluation(14, 27, 3.0), 14, CONTINUE)
    manager.ended("a", LOST)
    manager.lost("a", error=False)
    assert lines(tmp_path) == before and manager.was_stopped("a")


def test_a_trial_that_hung_is_called_so_when_its_killed_worker_ends(opened: Any) -> None:
    manager, record = opened(Watchdog(0.001))
    begun(manager, "a")
    time.sleep(0.01)
    assert manager.hanging(lambda: ["a"]) == ["a"]
    assert record.trials[0].is_running, "Ray has still to find its worker dead"
    manager.drain("a")
    assert not manager.drains("a"), "it will report nothing to leave with"
    manager.ended("a", LOST)
    assert record.trials[0].losses == {"hung": 1}
    assert begun(manager, "b").attempt == 2


def test_in_a_search_that_stops_nobody_begins_again_for_a_node_that_goes(opened: Any) -> None:
    manager, record = opened()
    begun(manager, "a")
    manager.drain("a")
    manager.stop.halt_with(Verdict(Reason.DATA, "no rows"))
    assert manager.drains("a")
    manager.ended("a", LOST)
    assert record.trials[0].interrupted and not record.trials[0].losses
    assert manager.suggest("b") is None and manager.over


def test_it_is_over_only_when_nobody_runs(opened: Any) -> None:
    manager, _ = opened()
    for name in "abc":
        begun(manager, name)
    assert manager.suggest("d") is None and not manager.over, "one of the three may be lost yet"
    manager.ended("a", LOST)
    assert begun(manager, "d").number == 0
    for name in "dbc":
        manager.ended(name, Verdict(Reason.BUDGET, "budget"))
    assert manager.suggest("e") is None and manager.over


@pytest.mark.parametrize(
    ("verdict", "losses", "given", "tried"),
    [
        (LOST, {}, None, True),
        (LOST, {"infrastructure": 2}, None, True),
        (LOST, {"infrastructure": 3}, None, False),
        (LOST, {"hung": 3}, None, True),
        (Verdict(Reason.HUNG), {}, None, True),
        (Verdict(Reason.HUNG), {"hung": 1}, None, False),
        (Verdict(Reason.ERROR, "boom"), {}, None, False),
        (Verdict(Reason.OUT_OF_MEMORY, device="x", fit=Fit(4)), {"out_of_memory": 9}, None, True),
        (Verdict(Reason.OUT_OF_MEMORY, device="x", fit=Fit(4)), {}, Fit(8), True),
        (Verdict(Reason.OUT_OF_MEMORY, device="x", fit=Fit(4)), {}, Fit(4), False),
        (Verdict(Reason.OUT_OF_MEMORY, device="x", fit=Fit(4)), {}, Fit(2), False),
        (Verdict(Reason.OUT_OF_MEMORY, device="x"), {}, None, False),
    ],
)
def test_what_is_tried_again(verdict: Verdict, losses: dict[str, int], given: Fit | None, tried: bool) -> None:
    assert bool(again(verdict, TrialRecord(0, losses=losses), given)) is tried


def test_a_disk_that_fills_up_now_and_then_does_not_use_up_a_trials_attempts() -> None:
    full = Trouble(errno.ENOSPC).verdict
    trial = TrialRecord(0, points=[Point(8, 800, 4.0)], losses={"infrastructure": 3, "disk": 9})
    found = again(full, trial, None)
    assert found and found.reason == "disk"
    after = TrialRecord(0)
    after.take_up(trial)
    assert again(full, after, None) is None, "it has come no further: the program fills the disk itself, maybe"
    after.points.append(Point(9, 900, 3.9))
    assert again(full, after, None)
    assert again(Verdict(Reason.INFRASTRUCTURE, "its process died"), after, None) is None, "other losses are counted"


def test_a_streak_is_of_one_cause_and_broken_by_any_other_ending() -> None:
    def last(*messages: str) -> Verdict | None:
        streak = Streak()
        endings = [Verdict(Reason.ERROR, m) if m else Verdict(Reason.RUNG) for m in messages]
        return [streak.ended(number, verdict) for number, verdict in enumerate(endings)][-1]

    assert IN_A_ROW == 3
    found = last("ValueError at 0x7f01", "ValueError at 0x7f02", "ValueError at 0x7f03")
    assert found and found.message.startswith("trials 0, 1 and 2 failed one after another")
    assert last("KeyError: a", "KeyError: a", "KeyError: b") is None
    assert last("KeyError: a", "KeyError: a", "", "KeyError: a") is None


def parks(manager: TrialManager, judge: Judge, name: str, number: int, loss: float) -> Decision:
    """A trial's evaluation at the rung, as the scheduler passes it on."""
    decision = judge.decide(Candidate(number, [Reading(14, loss)], spared=number == 0))
    manager.set_up(name, Setup(27, 10, 1000))
    manager.evaluated(name, Evaluation(14, 27, loss), 14, decision)
    return decision


def test_parked_trials_wait_for_the_algorithm_and_then_end(opened: Any, tmp_path: Path) -> None:
    manager, record = opened()
    judge = manager._judge
    first = begun(manager, "a")
    assert first.state_steps(27) == {14}
    assert parks(manager, judge, "a", 0, 4.0) == CONTINUE
    begun(manager, "b")
    assert parks(manager, judge, "b", 1, 3.0) == PAUSE
    assert record.trials[1].parked and not record.trials[1].is_running and [t.number for t in record.running] == [0]
    assert manager.running_as(1, 1) is None, "its reports do not count any more"
    begun(manager, "c")
    assert parks(manager, judge, "c", 2, 2.0) == PAUSE
    assert record.counts["status"] == {"parked": 2}
    resumed = begun(manager, "d")
    assert (resumed.number, resumed.attempt, resumed.resume.step) == (2, 2, 14), "the best third of three"
    assert manager.suggest("e") is None and record.trials[1].parked, "the others run"
    manager.set_up("d", Setup(27, 10, 1000, resumed_step=14))
    for name in "ad":
        manager.evaluated(name, Evaluation(27, 27, 1.5), 27, stop(Verdict(Reason.BUDGET, "budget")))
    assert not manager.over
    assert manager.suggest("e") is None and manager.over and manager.complete
    assert record.trials[1].ending == "pruned: parked at 14, others went on"
    assert record.trials[2].curve == [2.0, 1.5] and record.best and record.best.number == 0
    invariants.check_ledger(tmp_path)
    manager.close()
    invariants.check_study(tmp_path, record)


def test_parked_trials_outlive_their_driver(opened: Any, tmp_path: Path) -> None:
    manager, record = opened()
    for number, name in enumerate("abc"):
        begun(manager, name)
        parks(manager, manager._judge, name, number, 4.0 - number)
    manager.close()
    assert [t.state for t in record.trials.values()] == ["interrupted", "parked", "parked"]
    invariants.check_study(tmp_path, record)
    ledger = tmp_path / "trials.jsonl"
    whole = ledger.read_text().splitlines(keepends=True)
    assert '"event":"parked"' in whole[-2] and '"event":"interrupted"' in whole[-1]
    ledger.write_text("".join(whole[:-2]))  # killed between the evaluation and the line that follows from it
    manager, record = opened()
    assert [t.state for t in record.trials.values()] == ["interrupted", "parked", "parked"]
    assert [begun(manager, name).number for name in "de"] == [0, 2], "what was cut off, then the best of the parked"
    manager.stop_trial(1)
    assert record.trials[1].ending == "stopped: user"
    invariants.check_ledger(tmp_path)
