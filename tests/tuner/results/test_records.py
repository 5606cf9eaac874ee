"""The record that each event updates equals one that is computed from all events."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.contract import EVAL_LOSS, Objective, Reason, Status
from tuner.results.adapters import drop_surplus
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord, TrialRecord

LOSSES = [1.0, 2.0, 2.0, 3.0, math.nan, math.inf, None]


def events(seed: int, trials: int = 40) -> Iterator[Event]:
    """Draws a search in several sessions: trials end in every way, are cut off, run again, and tie."""
    rng, attempts = random.Random(seed), dict.fromkeys(range(trials), 0)
    running: list[int] = []
    for when in range(400):
        if rng.random() < 0.02:
            yield Event(Kind.SEARCH, when, details={"name": "first", "num_trials": trials})
            running = []
        elif running and rng.random() < 0.8:
            number = rng.choice(running)
            kind = rng.choice([Kind.EVALUATION, Kind.EVALUATION, Kind.ENDED, Kind.INTERRUPTED])
            reason = rng.choice(list(Reason))
            yield Event(
                kind, when, number=number, attempt=attempts[number], step=when,
                metrics={"eval_loss": rng.choice(LOSSES)},
                status=reason.status, reason=reason, details={"adapter": f"adapters/{number:04d}/adapter"},
            )  # fmt: skip
            if kind in (Kind.ENDED, Kind.INTERRUPTED):
                running.remove(number)
        else:
            number = rng.randrange(trials)
            if number not in running:
                attempts[number] += 1
                running.append(number)
                yield Event(Kind.STARTED, when, number=number, attempt=attempts[number], params={})


def test_a_search_that_goes_by_what_is_measured_at_the_end() -> None:
    quality = Objective("quality", direction="maximize", measured="end")
    said = [quality.to_dict(), EVAL_LOSS.to_dict()]
    events = [Event(Kind.SEARCH, 0, details={"name": "s", "num_trials": 3, "objectives": said})]
    for number, (loss, value) in enumerate(((3.0, 0.2), (2.0, 0.1), (1.0, None))):
        place = {"number": number, "attempt": 1}
        events.append(Event(Kind.STARTED, 1, **place, params={}))
        events.append(Event(Kind.EVALUATION, 2, **place, step=1, metrics={"eval_loss": loss + 1}))
        measured = {"eval_loss": loss, "quality": value}
        events.append(Event(Kind.EVALUATION, 3, **place, step=2, metrics=measured))
        events.append(Event(Kind.ENDED, 4, **place, step=2, status="completed", reason="budget"))
    record = SearchRecord.fold(events)
    assert record.objectives == (quality, EVAL_LOSS) and record.compared_by is record.objectives[1]
    assert [t.number for t in record.ranked] == [0, 1], "the third has none: its metric failed"
    assert record.best is record.trials[0] and record.best.best_value == 0.2 and record.gain == 0.0
    assert record.trials[0].curve == [4.0, 3.0] and record.trials[0].best is record.trials[0].points[1]
    assert record.trials[0].intermediate(3.0) == -3.0 and record.trials[2].best_value is None
    assert record.trials[0].last("quality") == 0.2


def by_loss(trial: TrialRecord) -> float:
    return math.inf if trial.best_value is None else trial.best_value


@pytest.mark.parametrize("seed", range(8))
def test_every_answer_is_that_of_a_look_at_all_trials(seed: int) -> None:
    record = SearchRecord()
    for event in events(seed):
        record.apply(event)
        trials = list(record.trials.values())
        usable = sorted(
            (t for t in trials if t.is_usable), key=lambda t: (t.status is not Status.COMPLETED, by_loss(t), t.number)
        )
        assert list(record.ranked) == usable
        assert record.best is (usable[0] if usable else None)
        assert record.num_ended == len(record.ended) == sum(t.has_ended for t in trials)
        assert {t.number for t in record.running} == {t.number for t in trials if t.is_running}
        assert {t.number for t in record.cut_off} == {t.number for t in trials if t.interrupted}
        board = record.leaderboard
        assert len(board) == len(trials) and board[: len(usable)] == usable
        rest = [(t.has_ended, by_loss(t), t.number) for t in board[len(usable) :]]
        assert rest == sorted(rest)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_best_few_adapters_are_kept_after_every_ending(tmp_path: Path, keep: int) -> None:
    folder, record = RunFolder(tmp_path), SearchRecord()
    (tmp_path / "adapters").mkdir()
    for event in events(3):
        record.apply(event)
        if event.number is None:
            continue
        if event.event is Kind.STARTED:
            (folder.trial(event.number) / "adapter").mkdir(parents=True, exist_ok=True)
        if event.event is not Kind.ENDED:
            continue
        drop_surplus(folder, record, keep, ended=event.number)
        left = {int(place.name) for place in folder.adapters.iterdir()}
        best = [t.number for t in record.ranked if t.adapter][:keep]
        recipe = [0] if 0 in {t.number for t in record.ranked if t.has_ended} else []
        ended = {n for n in left if record.trials[n].has_ended}
        assert ended <= {*best, *recipe} and (0 in ended or not recipe or not record.trials[0].has_ended)
        assert left >= {t.number for t in record.trials.values() if not t.has_ended}


def test_what_a_driver_that_vanished_left_over_is_dropped_by_a_look_at_the_folder(tmp_path: Path) -> None:
    folder, record = RunFolder(tmp_path), SearchRecord.fold(events(3))
    for number in [*record.trials, 999]:
        (folder.trial(number) / "adapter").mkdir(parents=True)
        (folder.attempt(number, 2) / "state").mkdir(parents=True)
    drop_surplus(folder, record, 2)
    best = [t.number for t in record.ranked if t.adapter][:2]
    best += [0] if 0 in {t.number for t in record.ranked if t.has_ended} else []
    kept = {*best, *(t.number for t in record.trials.values() if not t.has_ended), 999}
    assert {int(place.name) for place in folder.adapters.iterdir()} == kept
    states = {int(place.parents[1].name) for place in folder.adapters.glob("*/attempt-*/state")}
    assert states == kept - set(best), "who has ended needs none"


@pytest.mark.parametrize(
    ("planned", "begun", "outcome", "share"),
    [
        (16, 1, "interrupted", 0.5 / 16),  # not half of the search
        (16, 1, "", 0.5 / 16),
        (16, 1, "done", 0.5),  # its space had one point
        (1, 2, "done", 0.25),  # one was added, and has reported nothing
        (2, 0, "", None),
    ],
)
def test_the_share_of_the_budget_is_that_of_all_planned_trials(
    planned: int, begun: int, outcome: str, share: float | None
) -> None:
    record = SearchRecord()
    record.apply(Event(Kind.SEARCH, 0.0, details={"num_trials": planned}))
    for number in range(begun):
        record.apply(Event(Kind.STARTED, 1.0, number=number, attempt=1, params={}))
    if begun:
        record.apply(Event(Kind.SETUP, 2.0, number=0, attempt=1, details={"max_steps": 10}))
        record.apply(Event(Kind.EVALUATION, 3.0, number=0, attempt=1, step=5, tokens=500, metrics={"eval_loss": 1.0}))
    if outcome:
        record.apply(Event(Kind.FINISHED, 4.0, details={"outcome": outcome}))
    assert record.budget_share == (share and pytest.approx(share))
