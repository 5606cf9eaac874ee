"""The ledger: strict JSON, durable, readable with an incomplete last line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.contract import Fit, Reason, Status
from tuner.results import ledger as ledger_module
from tuner.results.ledger import Event, Kind, Ledger, LedgerTail, UnreadableLine, read_ledger
from tuner.results.records import SearchRecord


def write_run(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.append(Kind.SEARCH, details={"name": "first", "num_trials": 2, "workers": 1})
    for number, losses in enumerate([[5.0, 4.0], [5.5]]):
        ledger.append(Kind.STARTED, trial=f"t{number}", number=number, attempt=1, params={"lr": 1e-3 * (number + 1)})
        ledger.append(Kind.SETUP, trial=f"t{number}", number=number, attempt=1, details={"max_steps": 20})
        for i, loss in enumerate(losses):
            ledger.append(
                Kind.EVALUATION, trial=f"t{number}", number=number, attempt=1,
                step=10 * (i + 1), tokens=100 * (i + 1), metrics={"eval_loss": loss},
            )  # fmt: skip
    ledger.append(Kind.ENDED, trial="t0", number=0, attempt=1, status="completed", reason="budget")
    ledger.append(Kind.ENDED, trial="t1", number=1, attempt=1, status="pruned", reason="rung")
    return ledger


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.289622, 0.1 + 0.2])
def test_every_number_survives_and_the_line_is_strict_json(value: float) -> None:
    event = Event(
        Kind.EVALUATION, metrics={"eval_loss": value}, details={"train_loss": value, "nested": [value, {"x": value}]}
    )
    line = event.to_json()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Event.from_json(line).metrics["eval_loss"]
    assert back is not None and (back == value or (math.isnan(back) and math.isnan(value)))


def test_a_torn_last_line_is_left_out_and_cut_before_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    write_run(path).close()
    whole = list(read_ledger(path))
    with path.open("a") as file:
        file.write('{"event":"evaluation","number":1,"eval_l')
    assert list(read_ledger(path)) == whole
    ledger = Ledger(path)
    ledger.append(Kind.FINISHED)
    assert [e.event for e in read_ledger(path)] == [*[e.event for e in whole], Kind.FINISHED]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    write_run(path).close()
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = "garbage\n"
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match="line 3"):
        list(read_ledger(path))


def test_an_event_is_on_disk_before_anyone_hears_of_it(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    heard: list[int] = []
    ledger = Ledger(path, [lambda event: heard.append(len(path.read_text().splitlines()))])
    ledger.append(Kind.SEARCH)
    ledger.append(Kind.FINISHED)
    assert heard == [1, 2]


def test_records_fold(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    write_run(path).close()
    record = SearchRecord.fold(read_ledger(path))
    assert record.name == "first" and record.num_trials == 2
    assert record.counts == {"status": {"completed": 1, "pruned": 1}, "reason": {"budget": 1, "rung": 1}}
    assert record.best is record.trials[0] is record.recipe and record.gain == 0
    assert record.tokens == 300 and record.budget_share == pytest.approx(300 / 400)
    assert [t.number for t in record.leaderboard] == [0, 1]


@pytest.mark.parametrize(("resumed_step", "curve", "tokens"), [(0, [3.9], 100), (5, [4.0, 3.9], 90)])
def test_an_attempt_goes_on_or_begins_anew_as_its_setup_says(
    resumed_step: int, curve: list[float], tokens: int
) -> None:
    events = [
        Event(Kind.SEARCH, 1.0),
        Event(Kind.STARTED, 2.0, trial="a", number=0, attempt=1, params={}),
        Event(Kind.EVALUATION, 3.0, trial="a", number=0, attempt=1, step=5, tokens=50, metrics={"eval_loss": 4.0}),
        Event(Kind.RETRY, 4.0, trial="a", number=0, attempt=1, reason="infrastructure", details={"message": "gone"}),
        Event(Kind.STARTED, 5.0, trial="b", number=0, attempt=2, params={}),
    ]
    assert SearchRecord.fold(events[:4]).trials[0].ending == "to be tried again: gone"
    assert SearchRecord.fold(events).trials[0].curve == [4.0], "known until the set-up says otherwise"
    setup = Event(Kind.SETUP, 6.0, trial="b", number=0, attempt=2, details={"resumed_step": resumed_step})
    seen = 50 if resumed_step == 0 else 90
    after = Event(Kind.EVALUATION, 7.0, trial="b", number=0, attempt=2, step=9, tokens=seen, metrics={"eval_loss": 3.9})
    trial = SearchRecord.fold([*events, setup, after]).trials[0]
    assert trial.curve == curve and trial.tokens == tokens and trial.losses == {"infrastructure": 1}


def test_what_was_learned_of_a_devices_memory_is_the_least_of_it() -> None:
    def retry(number: int, micro: int, checkpointing: bool = False) -> Event:
        fit = {"micro_batch": micro, "gradient_checkpointing": checkpointing}
        details = {"message": "", "device": "H100", "fit": fit}
        return Event(Kind.RETRY, number=number, attempt=1, reason="out_of_memory", details=details)

    started = [Event(Kind.STARTED, trial=str(n), number=n, attempt=1, params={}) for n in range(2)]
    record = SearchRecord.fold([*started, retry(0, 2), retry(1, 4)])
    assert record.fits == {"H100": Fit(2)}


def test_reports_of_a_replaced_attempt_count_for_nothing() -> None:
    events = [
        Event(Kind.SEARCH, 1.0),
        Event(Kind.STARTED, 2.0, trial="a", number=0, attempt=1, params={}),
        Event(Kind.EVALUATION, 3.0, trial="a", number=0, attempt=1, step=5, tokens=50, metrics={"eval_loss": 4.0}),
        Event(Kind.SEARCH, 4.0),
        Event(Kind.STARTED, 5.0, trial="b", number=0, attempt=2, params={}),
        Event(Kind.SETUP, 5.5, trial="b", number=0, attempt=2),
        Event(Kind.EVALUATION, 6.0, trial="a", number=0, attempt=1, step=10, tokens=100, metrics={"eval_loss": 0.1}),
        Event(Kind.ENDED, 7.0, trial="a", number=0, attempt=1, status="completed", reason="budget"),
        Event(Kind.EVALUATION, 8.0, trial="b", number=0, attempt=2, step=5, tokens=50, metrics={"eval_loss": 3.9}),
    ]
    record = SearchRecord.fold(events)
    trial = record.trials[0]
    assert trial.attempt == 2 and trial.curve == [3.9] and trial.is_running
    assert trial.tokens == 100, "what the first attempt spent was spent"


def test_a_driver_that_vanished_leaves_its_trials_interrupted() -> None:
    record = SearchRecord.fold(
        [
            Event(Kind.SEARCH, 1.0),
            Event(Kind.STARTED, 2.0, trial="a", number=0, attempt=1, params={}),
            Event(Kind.SEARCH, 100.0),
        ]
    )
    assert record.trials[0].interrupted and not record.trials[0].has_ended
    assert record.wall_s == pytest.approx(1.0), "the time between two sessions is not the search's"


def test_the_winner_is_a_completed_trial_if_there_is_one() -> None:
    def trial(number: int, loss: float, status: Status, reason: Reason) -> list[Event]:
        return [
            Event(Kind.STARTED, trial=str(number), number=number, attempt=1, params={}),
            Event(Kind.EVALUATION, number=number, attempt=1, step=1, metrics={"eval_loss": loss}),
            Event(Kind.ENDED, number=number, attempt=1, status=status, reason=reason),
        ]

    pruned = trial(1, 2.0, Status.PRUNED, Reason.RUNG)
    completed = trial(0, 3.0, Status.COMPLETED, Reason.BUDGET)
    diverged = trial(2, 1.0, Status.PRUNED, Reason.DIVERGED)
    assert SearchRecord.fold([*pruned, *completed, *diverged]).best.number == 0  # type: ignore[union-attr]
    assert SearchRecord.fold([*pruned, *diverged]).best.number == 1  # type: ignore[union-attr]
    assert SearchRecord.fold(diverged).best is None


def test_a_driver_that_is_killed_has_lost_nothing_it_told(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from tuner.results.ledger import Kind, Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for step in range(5): ledger.append(Kind.EVALUATION, number=0, attempt=1, step=step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert [e.step for e in read_ledger(path)] == [0, 1, 2, 3, 4]


def test_every_ending_is_forced_to_the_disk_and_reports_at_most_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (forced.append(len(path.read_text().splitlines())), fsync(file)))
    path = tmp_path / "trials.jsonl"
    ledger = Ledger(path)
    monkeypatch.setattr(ledger_module, "SYNC_EVERY_S", 1e9)
    for kind in [Kind.SEARCH, Kind.STARTED, Kind.EVALUATION, Kind.EVALUATION, Kind.ENDED, Kind.INTERRUPTED]:
        ledger.append(kind, number=0)
    assert forced == [1, 5, 6]
    monkeypatch.setattr(ledger_module, "SYNC_EVERY_S", 0.0)
    ledger.append(Kind.EVALUATION, number=0)
    assert forced == [1, 5, 6, 7]


def test_the_tail_gives_each_event_once_when_its_line_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.touch()
    tail = LedgerTail(path)
    assert tail.new() == []
    ledger = Ledger(path)
    first = ledger.append(Kind.NOTE, details={"text": "a"})
    second = Event(Kind.NOTE, 2.0, details={"text": "b"}).to_json()
    with path.open("a") as file:
        file.write(second[:20])
    assert tail.new() == [first] and tail.new() == []
    with path.open("a") as file:
        file.write(second[20:] + "\nno event\n")
    with pytest.raises(UnreadableLine) as damaged:
        tail.new()
    assert damaged.value.number == 3
