"""A trial that is cut off and continues has the curve of one that was not cut off, to the last digits."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Count
from trainables import states
from trainables.sft import SFT
from tuner.contract import ALIVE, CHECKPOINT_REQUEST, STATE, Assignment, Evaluation, Resume, Setup

pytestmark = pytest.mark.usefixtures("one_thread", "every_evaluation")

Make = Callable[..., dict[str, Any]]
POINTS = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.fixture
def program(sft_settings: Make, cache: Path) -> Callable[..., SFT]:
    def make(**sections: dict[str, Any]) -> SFT:
        # 36 rows in batches of 8: an epoch has 5 steps, of which the last is short, and 15 steps are three epochs
        train = {"max_steps": 15, "lora_dropout": 0.1, "warmup_ratio": 0.2, **sections.pop("train", {})}
        settings = sft_settings(train=train, **sections)
        return SFT(settings, SFT.prepare(settings, cache))

    return make


def assignment(folder: Path, name: str, params: dict[str, Any] | None = None) -> Assignment:
    place = folder / name
    place.mkdir(parents=True)
    return Assignment(3, params or {}, 7, POINTS, str(place))


def rest(program: SFT) -> list[Evaluation]:
    curve = [program.step()]
    while not curve[-1].done:
        curve.append(program.step())
    program.stop()
    return curve


def whole(program: SFT, task: Assignment) -> list[Evaluation]:
    program.start(task)
    return rest(program)


def cut(program: SFT, task: Assignment, after: int) -> list[Evaluation]:
    """Runs a trial for so many evaluations, and stops it; only its states remain."""
    program.start(task)
    curve = [program.step() for _ in range(after)]
    program.stop()
    return curve


def going_on(task: Assignment, folder: Path, known: list[Evaluation]) -> Assignment:
    """The next attempt at a trial, by a driver that knows the evaluations `known`."""
    place = folder / "attempt-2"
    place.mkdir()
    best = min((e.eval_loss for e in known if e.eval_loss is not None), default=None)
    resume = Resume(known[-1].step if known else 0, best, (task.folder,))
    return replace(task, folder=str(place), attempt=2, resume=resume)


def assert_same(curve: list[Evaluation], expected: list[Evaluation]) -> None:
    assert [(e.step, e.tokens) for e in curve] == [(e.step, e.tokens) for e in expected]
    for mine, theirs in zip(curve, expected, strict=True):
        assert mine.eval_loss == pytest.approx(theirs.eval_loss, abs=1e-5)
        assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert (mine.adapter is None) == (theirs.adapter is None)


def variant(train: dict[str, Any] | None = None, chaos: bool = False, **params: Any) -> Any:
    return pytest.param(params, train or {}, marks=[pytest.mark.chaos] if chaos else [], id=str(params or "recipe"))


@pytest.mark.parametrize(
    ("params", "train"),
    [
        variant(),
        # An epoch has three steps: the trial is cut off at the end of one
        variant({"per_device_train_batch_size": 4}, effective_batch_size=12, lr_scheduler_type="cosine"),
        variant(optim="adamw_8bit"),
        variant(optim="rmsprop", use_dora=True),
        variant(chaos=True, optim="adafactor"),
        variant(chaos=True, optim="sgd", learning_rate=0.1),
        variant(chaos=True, init_lora_weights="pissa"),
    ],
)
def test_a_cut_trial_goes_on_as_if_it_had_not_been(
    program: Callable[..., SFT], tmp_path: Path, params: dict[str, Any], train: dict[str, Any]
) -> None:
    trials = program(train=train)
    expected = whole(trials, assignment(tmp_path, "undisturbed", params))
    task = assignment(tmp_path, "cut", params)
    known = cut(trials, task, 2)
    setup = trials.start(going_on(task, tmp_path, known))
    assert setup.resumed_step == expected[1].step and not setup.note
    assert_same([*known, *rest(trials)], expected)


def test_what_the_driver_never_heard_of_is_handed_over_and_what_it_knows_is_not(
    program: Callable[..., SFT], tmp_path: Path
) -> None:
    trials = program()
    expected = whole(trials, assignment(tmp_path, "undisturbed"))
    task = assignment(tmp_path, "cut")
    curve = cut(trials, task, 3)
    ahead = going_on(task, tmp_path / "a", curve[:2]) if (tmp_path / "a").mkdir() is None else task
    assert trials.start(ahead).resumed_step == 9
    assert_same([*curve[:2], *rest(trials)], expected)

    # The state is older than what the driver knows: the trial trains up to there again, and reports it once
    Path(task.folder, STATE, "state.safetensors").unlink()
    (tmp_path / "b").mkdir()
    behind = going_on(task, tmp_path / "b", curve)
    assert trials.start(behind).resumed_step == 6
    assert_same([*curve, *rest(trials)], expected)


def test_a_trial_whose_last_report_was_lost_is_not_trained_on(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    expected = whole(trials, task)
    trials.start(going_on(task, tmp_path, expected[:-1]))
    assert_same([*expected[:-1], *rest(trials)], expected)


DAMAGED = "a trial's state cut off or with a bit flipped"
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"\xff" * len(data),
    "a bit of its tensors": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "a bit of its header": lambda data: data.replace(b"moved", b"mpved", 1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_named_and_the_one_before_it_used(
    program: Callable[..., SFT], tmp_path: Path, fault: Count, damage: Callable[[bytes], bytes]
) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    known = cut(trials, task, 3)
    newest = Path(task.folder, STATE, "state.safetensors")
    newest.write_bytes(damage(newest.read_bytes()))
    setup = trials.start(going_on(task, tmp_path, known))
    trials.stop()
    assert setup.resumed_step == 6
    assert str(newest) in setup.note and "older one, step 6" in setup.note
    fault(DAMAGED)


def begun(program: SFT, task: Assignment) -> Setup:
    setup = program.start(task)
    program.stop()
    return setup


def test_where_no_state_is_whole_it_begins_anew_and_says_so(
    program: Callable[..., SFT], tmp_path: Path, fault: Count
) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    known = cut(trials, task, 2)
    for file in Path(task.folder, STATE).glob("*.safetensors"):
        file.write_bytes(b"")
    setup = begun(trials, going_on(task, tmp_path, known))
    assert setup.resumed_step == 0 and setup.note.count("is damaged") == 2 and "begins at step 0" in setup.note
    fault(DAMAGED, 2)


def test_a_state_is_due_when_the_node_is_about_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(states.EVERY, "1000")
    saves = states.SaveSchedule(tmp_path)
    assert not saves.due(3)
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / CHECKPOINT_REQUEST).touch()
    assert saves.due(3)


def test_a_state_is_due_where_the_trial_may_be_parked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(states.EVERY, "1000")
    shares = (0.15, 0.5, 1.0)
    task = Assignment(0, {}, 0, evaluate_at=shares, folder=str(tmp_path), save_state_at=shares[:2])
    saves = states.SaveSchedule(tmp_path, task.state_steps(10))
    assert [step for step in range(1, 11) if saves.due(step)] == [2, 5]


def test_a_state_of_another_trial_is_not_taken(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    known = cut(trials, task, 2)
    other = replace(going_on(task, tmp_path, known), params={"lora_r": 8})
    setup = begun(trials, other)
    assert setup.resumed_step == 0 and "another trial's" in setup.note


def test_without_a_state_it_begins_anew_in_silence(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    known = cut(trials, task, 1)
    shutil.rmtree(Path(task.folder, STATE))
    setup = begun(trials, going_on(task, tmp_path, known))
    assert (setup.resumed_step, setup.note) == (0, "")


def test_a_disk_that_takes_no_more_costs_the_state_and_not_the_trial(
    program: Callable[..., SFT], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = program()
    task = assignment(tmp_path, "cut")
    trials.start(task)
    first = trials.step()
    place = Path(task.folder, STATE)
    newest = place / "state.safetensors"
    kept = newest.read_bytes()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, unlimited[1]))  # an adapter has 35 kB, a state 110
    try:
        second = trials.step()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    trials.stop()
    assert second.step > first.step and "was not saved" in caplog.text
    assert newest.read_bytes() == kept, "the state before it is still there, whole"
    assert {path.name for path in place.iterdir()} == {ALIVE, "state.safetensors"}
