"""Programs that misbehave: their trial ends with that reason, and the search goes on, or ends with the cause."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tuner.contract import Fit, Reason
from tuner.driver.session import Outcome
from tuner.results.ledger import Kind, read_ledger

Toy = Callable[..., Outcome]

MISBEHAVIOUR: dict[int, tuple[str, str, Reason]] = dict(
    enumerate(
        (
            ("nan", "a loss that is NaN", Reason.DIVERGED),
            ("inf", "a loss that is infinite", Reason.DIVERGED),
            ("minus_inf", "a loss that is minus infinite", Reason.DIVERGED),
            ("none", "a loss that is None", Reason.ERROR),
            ("text", "a loss that is a text", Reason.ERROR),
            ("huge_loss", "a loss of 10 MB", Reason.ERROR),
            ("no_keys", "a report without its keys", Reason.ERROR),
            ("nonsense", "a report that is a text", Reason.ERROR),
            ("no_report", "no report at all", Reason.ERROR),
            ("huge", "a report of 10 MB", Reason.ERROR),
            ("unpicklable", "a report that cannot be pickled", Reason.ERROR),
            ("holds_a_lock", "a program that cannot be pickled", Reason.BUDGET),
            ("unpicklable_report", "a report that cannot be pickled", Reason.ERROR),
            ("raise_in_setup", "a program that raises in set-up", Reason.ERROR),
            ("raise", "a program that raises", Reason.ERROR),
            ("kill_once", "kill -9 of a trial's actor", Reason.BUDGET),
            ("sys_exit", "a program that calls sys.exit", Reason.ERROR),
        ),
        start=1,
    )
)
"""By trial: what its program does, the fault's name in the table, and how the trial ends."""
KILLED = next(number for number, (behaviour, _, _) in MISBEHAVIOUR.items() if behaviour == "kill_once")


def test_each_misbehaviour_ends_its_own_trial(toy: Toy, fault: Count) -> None:
    each = {str(number): behaviour for number, (behaviour, _, _) in MISBEHAVIOUR.items()}
    trials = len(MISBEHAVIOUR) + 2
    outcome = toy(train__each=each, search__num_trials=trials, scheduler__kind="none",
                  scheduler__diverged={"factor": 2.0}, resources__max_concurrent_trials=1)  # fmt: skip
    record = invariants.check(outcome.path, num_trials=trials, exit_code=outcome.exit_code)
    found = {number: record.trials[number].reason for number in MISBEHAVIOUR}
    assert found == {number: reason for number, (_, _, reason) in MISBEHAVIOUR.items()}
    for number, (_, name, reason) in MISBEHAVIOUR.items():
        fault(name)
        assert reason is not Reason.ERROR or record.trials[number].message, name
    retried = record.trials[KILLED]
    assert retried.attempt == 2 and retried.losses == {"infrastructure": 1}
    assert [p.step for p in retried.points] == [p.step for p in record.trials[0].points], "no step twice, none missing"
    assert retried.setup["resumed_step"] > 0, "it went on and did not begin anew"


def test_three_in_a_row_with_one_cause_end_the_search(toy: Toy, fault: Count) -> None:
    outcome = toy(train__behaviour="raise_in_setup", train__misbehaving=[1, 3, 4, 5], search__num_trials=9,
                  resources__max_concurrent_trials=1)  # fmt: skip
    assert outcome.exit_code == 1 and len(outcome.record.trials) == 6, "one alone does not count, nor with one between"
    record = invariants.check(outcome.path, num_trials=6, exit_code=1)
    assert record.halt_reason == "error" and "trials 3, 4 and 5" in record.halt_message
    assert "cannot be set up" in record.halt_message and record.halt_remedy
    fault("three errors in a row with one cause")


@pytest.mark.parametrize(
    ("fits", "attempts", "fit", "reason"),
    [(2, 3, Fit(2), Reason.BUDGET), (0, 5, Fit(1, True), Reason.BUDGET), (-1, 5, Fit(1, True), Reason.OUT_OF_MEMORY)],
)
def test_out_of_memory_is_answered_and_remembered(
    toy: Toy, fault: Count, tmp_path: Path, fits: int, attempts: int, fit: Fit, reason: Reason
) -> None:
    outcome = toy(train__behaviour="too_large", train__misbehaving=[0, 2], train__fits=fits, search__num_trials=3,
                  scheduler__kind="none", resources__max_concurrent_trials=1)  # fmt: skip
    record = invariants.check(outcome.path, num_trials=3, exit_code=outcome.exit_code)
    first = record.trials[0]
    assert (first.reason, first.attempt) == (reason, attempts)
    assert [p.step for p in first.points][:1] == [3], "what it had reported stays"
    assert record.fits == {"toy": fit}
    later = record.trials[1]
    assert later.setup["micro_batch"] == fit.micro_batch, "all later trials begin with what is known"
    assert record.trials[2].attempt == 1
    told = [e.details["message"] for e in read_ledger(outcome.path / "trials.jsonl") if e.event is Kind.RETRY]
    assert told[0] == "out of memory, goes on with micro-batch 4"
    if reason is Reason.OUT_OF_MEMORY:
        assert invariants.study_of(outcome.path).trials[0].constraints == {"trainable": 1.0}
    fault("out of memory", attempts - 1)


@pytest.mark.chaos
def test_a_worker_that_always_dies_is_given_up(toy: Toy, fault: Count) -> None:
    outcome = toy(train__behaviour="segfault", train__misbehaving=[0], search__num_trials=2, scheduler__kind="none")
    record = invariants.check(outcome.path, num_trials=2, exit_code=outcome.exit_code)
    first = record.trials[0]
    assert (first.reason, first.attempt) == (Reason.INFRASTRUCTURE, 4)
    assert record.trials[1].reason is Reason.BUDGET
    fault("a segmentation fault", 4)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("behaviour", "reason", "attempt"),
    [("hang_once", Reason.BUDGET, 2), ("hang", Reason.HUNG, 2), ("slow_but_alive", Reason.BUDGET, 1)],
)
def test_a_trial_that_hangs_is_killed_and_tried_once_more(
    toy: Toy, fault: Count, behaviour: str, reason: Reason, attempt: int
) -> None:
    outcome = toy(train__behaviour=behaviour, train__misbehaving=[1], search__num_trials=4, scheduler__kind="none",
                  run__hang_timeout=2.5)  # fmt: skip
    record = invariants.check(outcome.path, num_trials=4, exit_code=outcome.exit_code)
    trial = record.trials[1]
    assert (trial.reason, trial.attempt) == (reason, attempt), trial.ending
    if behaviour == "slow_but_alive":
        fault("a trial that is slow and says so, let alone")
    else:
        assert "no progress for" in next(
            e.details["message"] for e in read_ledger(outcome.path / "trials.jsonl") if e.event is Kind.RETRY
        )
        fault("a trial that sleeps for ever", attempt)


@pytest.mark.chaos
def test_a_program_that_cannot_go_on_begins_anew_and_is_compared_once(toy: Toy, fault: Count) -> None:
    outcome = toy(train__behaviour="kill_once", train__misbehaving=list(range(6)), train__resumes=False,
                  search__num_trials=6)  # fmt: skip
    record = invariants.check(outcome.path, num_trials=6, exit_code=outcome.exit_code)
    again = [trial for trial in record.trials.values() if trial.attempt == 2]
    assert again and all(trial.setup["resumed_step"] == 0 and trial.points[0].step == 1 for trial in again)
    fault("kill -9 of a trial's actor", len(again))


@pytest.mark.chaos
def test_a_thousand_trials_with_one_in_twenty_killed(toy: Toy, fault: Count) -> None:
    outcome = toy(train__killed=0.05, train__eval_steps=0.5, search__num_trials=1000, search__sampler="random")
    record = invariants.check(outcome.path, num_trials=1000, exit_code=outcome.exit_code)
    killed = sum(trial.attempt > 1 for trial in record.trials.values())
    assert 30 < killed < 70
    assert not [t.ending for t in record.ended if t.reason is Reason.INFRASTRUCTURE]
    fault("kill -9 of a trial's actor, among 1,000 trials", killed)


@pytest.mark.chaos
@pytest.mark.parametrize("behaviour", ["fork", "fork_and_die"])
def test_a_child_that_a_program_leaves_behind(tmp_path: Path, fault: Count, behaviour: str) -> None:
    driver = driving.toy(tmp_path, "--scheduler", "none", train={"each": {"1": behaviour}, "pace": 0.2}, trials=3)

    def children() -> list[psutil.Process]:
        return [p for p in driver.look_around() if invariants.name_of(p).startswith("sleep ")]

    driver.wait(lambda events: bool(children()))
    left = children()
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check(driver.folder, num_trials=3, exit_code=code, family=[*left, *driver.family])
    fault("a program that forks a child that stays")


def test_a_search_leaves_the_ends_of_this_process_own_children_alone(toy: Toy) -> None:
    """Ray has a way of reaping orphans that has every subprocess seem to end with code 0, the driver's too."""
    toy(search__num_trials=1)
    assert subprocess.run(["false"], check=False).returncode == 1
