"""One table of misbehaviours, in every way in which a program is called, with real Ray and real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tests.integration.conftest import SPACE
from tests.programs.misbehaving import ENDS_AS
from tuner.contract import Fault, InputError, Reason, Verdict
from tuner.driver.session import Outcome
from tuner.results.ledger import Kind, read_ledger
from tuner.subprocess_call import SubprocessProgram

Toy = Callable[..., Outcome]
PACK = "tests.programs.pack:Pack"

NAMES = {
    "raises": "a program that raises",
    "exits": "a program that calls sys.exit",
    "exits_in_a_thread": "sys.exit in a thread of a program",
    "interrupts": "a KeyboardInterrupt in a worker",
    "host_memory": "the host's memory, used up in a program",
    "gpu_memory": "a GPU's memory, used up where no program answers for it",
    "says_what_fits": "out of memory, with what would fit",
    "no_fault": "a Fault for what is no failure",
    "full_disk": "a full disk that a program meets",
    "import_error": "an import that fails in a program",
    "unsayable": "an exception that cannot be put into words",
    "unpicklable_report": "a report that cannot be pickled",
}
"""By behaviour, its name in the table of faults. `input_error` ends a search, and has a test of its own. So does a disk
that is full whoever tries: test_disk_full.py."""
ONE_AT_A_TIME: dict[str, Any] = {"scheduler__kind": "none", "resources__max_concurrent_trials": 1}
PACKED = {**ONE_AT_A_TIME, "run__program": PACK, "resources__trials_per_gpu": 2}
TWO_SIZES = {"parameters": {**SPACE["parameters"], "batch_size": {"type": "int", "low": 8, "high": 64}}}
WAYS: Mapping[str, dict[str, Any]] = {
    "alone": ONE_AT_A_TIME,
    "packed": PACKED,
    "beside an engine": {**PACKED, "search__space": TWO_SIZES, "search__sampler": "random"},
    "in two processes": {
        **ONE_AT_A_TIME, "run__program": "tests.programs.crew:Crew", "resources__workers_per_trial": 2,
        "resources__cpus_per_trial": 2,
    },
}  # fmt: skip

IN_A_GROUP = ["exits", "host_memory", "says_what_fits", "unpicklable_report"]
"""A group of processes that failed is begun anew, which takes 20 s: the others are in test_failing_ways.py."""


@pytest.mark.chaos
@pytest.mark.parametrize("way", WAYS)
def test_a_misbehaviour_ends_alike_in_every_way(toy: Toy, fault: Count, way: str) -> None:
    order = IN_A_GROUP if way == "in two processes" else [name for name in NAMES if name != "full_disk"]
    between = dict(enumerate(order, start=1))
    trials = 2 * len(order) + 2  # every second one is fine: three failures in a row would end the search
    each = {str(2 * number): behaviour for number, behaviour in between.items()}
    outcome = toy(train__each=each, search__num_trials=trials, **WAYS[way])
    record = invariants.check(outcome.path, num_trials=trials, exit_code=outcome.exit_code)
    for number, behaviour in between.items():
        trial = record.trials[2 * number]
        if behaviour == "unpicklable_report":
            assert trial.reason is Reason.ERROR and "TypeError" in trial.message
        else:
            expected = ENDS_AS[behaviour]
            assert (trial.reason, trial.message) == (expected.reason, expected.message), (way, behaviour)
        attempts = {Reason.INFRASTRUCTURE: 4}.get(trial.reason, 2 if behaviour == "says_what_fits" else 1)
        assert trial.attempt == attempts, (way, behaviour)
        fault(NAMES[behaviour])
    assert all(record.trials[number].reason is Reason.BUDGET for number in range(1, trials, 2))
    assert record.fits == {"toy GPU": ENDS_AS["says_what_fits"].fit}, "the device and what fits have arrived"


@pytest.mark.chaos
@pytest.mark.parametrize("way", WAYS)
def test_what_the_user_wrote_ends_the_search_in_every_way(toy: Toy, way: str) -> None:
    outcome = toy(train__each={"1": "input_error"}, search__num_trials=4, **WAYS[way])
    assert outcome.exit_code == 1
    assert (outcome.record.halt_reason, outcome.record.halt_message) == ("config", ENDS_AS["input_error"].message)


@pytest.mark.chaos
@pytest.mark.parametrize("behaviour", ENDS_AS)
def test_a_misbehaviour_while_rows_are_prepared(tmp_path: Path, fault: Count, behaviour: str) -> None:
    call = SubprocessProgram(PACK, "prepare", {"unprepared": behaviour}, str(tmp_path), log=tmp_path / "log")
    with pytest.raises((Fault, InputError)) as caught:
        call.result()
    call.close()
    if isinstance(caught.value, InputError):
        assert str(caught.value) == ENDS_AS[behaviour].message
        return
    given = caught.value
    assert isinstance(given, Fault)
    remedy = ENDS_AS[behaviour].remedy or f"see {tmp_path / 'log'}"
    expected = ENDS_AS[behaviour]
    assert given.verdict == Verdict(expected.reason, expected.message, remedy, expected.device, expected.fit)
    assert str(given.__cause__) in (tmp_path / "log").read_text()
    fault(NAMES[behaviour])


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("settings", "reason", "message"),
    [
        ({"unprepared": "exits"}, "error", "SystemExit: 3"),
        ({"unprepared": "die"}, "infrastructure", "the process that was to prepare ended with code 7"),
        ({"unprepared": "nothing"}, "error", "the program's prepare answered NoneType, expected a Preparation"),
        ({"in_pack": "exits"}, "error", "no engine for packed trials: SystemExit: 3"),
        ({"in_pack": "gpu_memory"}, "out_of_memory", "OutOfMemoryError: CUDA out of memory"),
        ({"in_pack": "die"}, "infrastructure", "no engine for packed trials: Actor"),
        ({"run__program": "tests.programs.pack:Warm"}, "error",
         "no engine for packed trials: ImportError: libfoo.so.1"),
    ],
)  # fmt: skip
def test_what_fails_before_the_first_trial_ends_the_search_and_says_why(
    toy: Toy, settings: dict[str, Any], reason: str, message: str
) -> None:
    outcome = toy(search__num_trials=2, **{**PACKED, **settings})
    assert outcome.exit_code == 1 and not outcome.record.trials
    assert outcome.record.halt_reason == reason and outcome.record.halt_message.startswith(message)
    assert outcome.record.halt_remedy or reason == "out_of_memory"


@pytest.mark.chaos
@pytest.mark.parametrize("way", ["packed", "beside an engine"])
def test_a_trial_that_hangs_takes_the_process_that_trains_it_along(toy: Toy, fault: Count, way: str) -> None:
    """Or the next trial would find it as it is: trial 2 runs where trial 1 hung.

    A process group: integration/test_process_groups.py.
    """
    outcome = toy(train__each={"1": "hang"}, search__num_trials=4, run__hang_timeout=15, **WAYS[way])
    record = invariants.check(outcome.path, num_trials=4, exit_code=outcome.exit_code)
    assert [record.trials[number].reason for number in range(4)] == [
        Reason.BUDGET, Reason.HUNG, Reason.BUDGET, Reason.BUDGET,
    ]  # fmt: skip
    assert record.trials[1].attempt == 2
    fault("a packed trial that sleeps for ever" if way == "packed" else "a trial that sleeps for ever", 2)


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_heard_while_an_engine_is_made(tmp_path: Path, fault: Count, times: int) -> None:
    run = {"program": PACK, "trackers": []}
    driver = driving.toy(tmp_path, "--trials-per-gpu", "2", "--set", "in_pack=sleeps", run=run)
    driver.wait(lambda events: any(event.event is Kind.PREPARED for event in events))
    time.sleep(3)
    since = time.monotonic()
    for _ in range(times):
        driver.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    code, _, errors = driver.end(timeout=60)
    assert code == 130 and time.monotonic() - since < 15, errors
    assert "interrupted" in errors and not (tmp_path / "run").exists(), "no trial began"
    fault("SIGINT" if times == 1 else "SIGINT, twice")


@pytest.mark.chaos
def test_an_engine_that_does_not_let_go_is_no_trap(toy: Toy) -> None:
    """Its trials end, later ones are told why at once, and three in a row end the search."""
    outcome = toy(train__each={"1": "sticks"}, search__num_trials=8, **PACKED)
    assert outcome.exit_code == 1 and outcome.record.halt_reason == "error"
    assert "it does not let go" in outcome.record.halt_message
    events = list(read_ledger(outcome.path / "trials.jsonl"))
    assert not [event for event in events if event.reason == Reason.HUNG]
