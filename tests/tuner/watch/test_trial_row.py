"""The row of a trial reads the ledger: what it prints, when it ends, and that only a failed trial raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.contract import Reason, Status
from tuner.results.ledger import Event, Kind, Ledger
from tuner.watch.trial_row import Row, TrialFailed, ending, trial


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "trials.jsonl")
    yield ledger
    ledger.close()


@pytest.fixture
def row(tmp_path: Path, ledger: Ledger) -> Callable[..., Row]:
    def made(number: int = 7, attempt: int = 1) -> Row:
        title, log = f"first · trial {number} lr=3e-4", str(tmp_path / "trial.log")
        return Row(
            title, number, attempt, str(tmp_path / "trials.jsonl"), ledger.size, log, "eval_loss", ("search first",)
        )

    return made


def evaluated(ledger: Ledger, step: int, loss: float | None, number: int = 7, attempt: int = 1) -> None:
    ledger.append(
        Kind.EVALUATION, number=number, attempt=attempt, step=step, metrics={"eval_loss": loss}, best={"eval_loss": 2.0}
    )


def ended(ledger: Ledger, status: Status, reason: Reason, message: str, **more: Any) -> None:
    details = {"message": message, **more}
    ledger.append(Kind.ENDED, number=7, attempt=1, step=40, status=str(status), reason=str(reason), details=details)


def test_reports_come_in_their_order_and_the_ending_last(ledger: Ledger, row: Any, tmp_path: Path, capsys: Any) -> None:
    evaluated(ledger, 20, 9.0)  # of an earlier session, before the row's part of the ledger
    of_7 = row()
    ledger.append(Kind.SETUP, number=7, attempt=1, details={"max_steps": 100})
    (tmp_path / "trial.log").write_text("loading\nhalf a line")
    evaluated(ledger, 20, 3.25)
    evaluated(ledger, 20, 5.5, number=17)
    evaluated(ledger, 20, 5.5, attempt=2)
    evaluated(ledger, 100, None)
    ended(ledger, Status.PRUNED, Reason.RUNG, "rung 1 (3.250, needed 2.000)")
    trial(of_7)
    said = capsys.readouterr()
    assert not said.out, "the page of a task opens on standard error"
    assert said.err.splitlines() == [
        "first · trial 7 lr=3e-4", "search first", f"log    {tmp_path / 'trial.log'}", "loading",
        "set up, 100 steps", "step  20/100 · 3.25 · best 2", "step 100/100 · no eval_loss · best 2",
        "pruned at step 40: rung 1 (3.250, needed 2.000)",
    ]  # fmt: skip


def test_it_follows_what_is_written_while_it_runs(ledger: Ledger, row: Any, capsys: Any) -> None:
    of_7 = row()
    running = threading.Thread(target=trial, args=(of_7,))
    running.start()
    evaluated(ledger, 20, 3.25)
    time.sleep(0.6)
    assert running.is_alive() and "3.25" in capsys.readouterr().err
    ledger.append(Kind.INTERRUPTED, number=7, attempt=1)
    running.join(5)
    assert not running.is_alive()
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: a resumed search goes on with it"


def test_only_a_failed_trial_raises(ledger: Ledger, row: Any, capsys: Any) -> None:
    of_7 = row()
    ended(ledger, Status.FAILED, Reason.OUT_OF_MEMORY, "no room for a micro-batch of 1", remedy="take a smaller base")
    with pytest.raises(TrialFailed, match="failed at step 40: no room for a micro-batch of 1"):
        trial(of_7)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "take a smaller base", "failed at step 40: no room for a micro-batch of 1"
    ]  # fmt: skip
    of_7 = row()
    ledger.append(Kind.RETRY, number=7, attempt=1, reason="infrastructure", details={"message": "its worker died"})
    trial(of_7)
    assert capsys.readouterr().err.splitlines()[-1] == "tried again: its worker died"


def test_it_returns_where_the_run_folder_is_gone(row: Any, tmp_path: Path, capsys: Any) -> None:
    of_7 = row()
    (tmp_path / "trials.jsonl").unlink()
    trial(of_7)
    assert "gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(Kind.PARKED, step=9), "parked at step 9: it goes on if the scheduler lets it"),
        (Event(Kind.ENDED, status="completed", reason="budget", step=27), "completed at step 27: budget"),
        (Event(Kind.ENDED, status="failed", reason="error", details={"message": "one\ntwo"}), "failed: one"),
    ],
)
def test_an_ending_is_one_line(event: Event, words: str) -> None:
    assert ending(event) == words
