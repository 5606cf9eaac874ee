"""Searches by another metric than a loss, on real Ray; and the resume of one that version 0.1 began."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.programs.measuring import ACCURACY, LENGTH, QUALITY
from tuner.cli import run
from tuner.contract import EVAL_LOSS, InputError, Reason
from tuner.driver.session import Outcome, resume_search
from tuner.results.folder import open_run
from tuner.results.ledger import Event, Kind, read_ledger

Toy = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "old_runs" / "v0_1"


def study_of(outcome: Outcome) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(outcome.path / "study.journal")))
    return optuna.load_study(study_name=outcome.path.name, storage=storage)


def test_a_number_that_rises_is_searched_cut_off_and_gone_on_with(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(event: Event) -> None:
        if event.event is Kind.EVALUATION and event.number == 7 and event.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    each = {"1": "nan", "2": "none", "3": "worsens", "4": "flat"}
    first = toy(
        [interrupt], run__program="tests.programs.measuring:Rising", search__num_trials=8, train__each=each,
        scheduler__grace_period=12, scheduler__flatline={"patience": 3, "after": 0.3}, search__seed=1,
    )  # fmt: skip
    assert first.exit_code == 128 + signal.SIGINT and first.record.cut_off
    before = {t.number: (t.trial, t.best_value, t.ending) for t in first.record.ended}

    second = resume_search(tmp_path, "toy", num_trials=14)
    record = second.record
    assert second.exit_code == 3 and record.objectives == (ACCURACY,)
    assert {n: (t.trial, t.best_value, t.ending) for n, t in record.trials.items() if n in before} == before
    ends = {number: record.trials[number] for number in (1, 2, 3, 4)}
    assert [t.reason for t in ends.values()] == [Reason.DIVERGED, Reason.ERROR, Reason.DIVERGED, Reason.FLATLINE]
    assert ends[1].message == "diverged (accuracy nan)" and ends[2].message.startswith("no accuracy at ")
    assert "times its first accuracy" in ends[3].message
    behind = [t for t in record.ended if t.reason is Reason.RUNG]
    for trial in behind:
        reached, needed = re.findall(r"0\.\d+", trial.message)
        assert float(reached) <= float(needed)
    assert any(t.number > 7 for t in behind), "rungs are filled from the ledger"

    best, recipe = record.best, record.recipe
    completed = [t for t in record.ended if t.reason in (Reason.BUDGET, Reason.FLATLINE)]
    assert best and recipe and best.best_value == max(t.best_value or 0.0 for t in completed)
    assert recipe.best_value and best.best_value and best.best_value > recipe.best_value
    study = study_of(second)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE and study.best_value == best.best_value
    manifest = json.loads((second.path / "best" / "manifest.json").read_text())
    assert manifest["metrics"] == best.best_metrics == {"accuracy": best.best_value} and manifest["eval_loss"] is None

    place = ["--storage-path", str(tmp_path)]
    assert run(["status", "toy", *place]) == 0
    table = capsys.readouterr().out
    gain = f"{100 * (best.best_value / recipe.best_value - 1):.1f}% above the recipe's {recipe.best_value:.3f}"
    assert f"trial {best.number}: {best.best_value:.3f}, {gain}" in table and "accuracy" in table.splitlines()[1]
    assert "eval loss" not in table
    assert run(["status", "toy", "--json", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["objectives"] == [ACCURACY.to_dict()] and told["best"]["metrics"] == best.best_metrics
    assert told["best"]["eval_loss"] is None and told["recipe"]["metrics"] == {"accuracy": recipe.best_value}
    assert [row["number"] for row in told["leaderboard"]] == [t.number for t in record.leaderboard]


def test_a_second_number_is_shown_beside_the_first(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = toy(run__program="tests.programs.measuring:TwoNumbers", search__num_trials=3, scheduler__kind="none")
    record = outcome.record
    best = record.best
    assert outcome.exit_code == 0 and record.objectives == (ACCURACY, LENGTH) and best
    assert best.best_metrics == {"accuracy": best.best_value, "answer_length": 67.0, "rows": 100.0}
    assert best.best_value == max(t.best_value or 0.0 for t in record.ended), "the first one alone decides"
    assert best.points[0].metrics["answer_length"] is None
    place = ["--storage-path", str(tmp_path)]
    assert run(["status", "toy", *place]) == 0
    head, *rows = capsys.readouterr().out.splitlines()[1:5]
    assert head.split()[:5] == ["#", "lr", "step", "accuracy", "answer"]
    assert all("67.000" in row for row in rows)
    assert run(["show", "toy", str(best.number), *place]) == 0
    page = capsys.readouterr().out
    assert f"accuracy of the answers {best.best_value:.3f}, answer length 67.000" in " ".join(page.split())
    card = (outcome.path / "best" / "README.md").read_text()
    assert "| step | tokens | accuracy of the answers | answer length |" in card and "| - |" in card


def test_what_is_measured_at_the_end_decides_though_losses_disagree(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = toy(
        run__program="tests.programs.measuring:AtTheEnd", search__num_trials=12, search__seed=1,
        resources__max_concurrent_trials=1,  # else the order in which reports arrive decides who is cut off
        scheduler__grace_period=3, scheduler__flatline={"patience": 3, "after": 0.3}, train__each={"2": "flat"},
    )  # fmt: skip
    record = outcome.record
    completed = [t for t in record.ended if t.reason is Reason.BUDGET]
    assert outcome.exit_code == 0 and record.objective == QUALITY and record.compared_by == EVAL_LOSS
    behind = [t for t in record.ended if t.reason is Reason.RUNG]
    assert behind and len(completed) > 2 and all(re.search(r"needed \d\.\d+", t.message) for t in behind), "by the loss"
    assert all(t.best_value is None and not t.is_usable for t in behind)
    assert record.trials[2].reason is not Reason.FLATLINE, "a flat loss ends none: the quality comes at the end"
    best = record.best
    by_loss = min(completed, key=lambda t: t.metrics["eval_loss"] or 99.0)
    assert best and best.best_value == max(t.best_value or 0.0 for t in completed)
    assert best is not by_loss and (best.best_value or 0.0) > (by_loss.best_value or 0.0)
    study = study_of(outcome)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE and study.best_value == best.best_value
    told = next(t.intermediate_values for t in study.trials if t.number == best.number)
    assert list(told.values()) == [-value for value in best.curve], "a lower loss is a higher value to the study"
    assert json.loads((outcome.path / "best" / "manifest.json").read_text())["trial"] == best.number
    assert run(["status", "toy", "--storage-path", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[1].split()[2:6] == ["step", "quality", "eval", "loss"]
    assert (
        f"trial 0, the recipe: {best.best_value:.3f}, 24.0% above trial 2's 25.000; no trial beat the recipe" in table
    )
    again = resume_search(tmp_path, "toy", num_trials=14)
    assert study_of(again).best_value == (again.record.best and again.record.best.best_value)


@pytest.mark.slow
def test_a_search_of_version_0_1_is_gone_on_with(tmp_path: Path) -> None:
    shutil.copytree(OLD / "older", tmp_path / "older")
    for empty in ("logs", "data"):  # of which git keeps nothing
        (tmp_path / "older" / empty).mkdir()
    before = list(read_ledger(tmp_path / "older" / "trials.jsonl"))
    command = ["search", "--resume", "older", "--allow-module", "plain", "--accept-changes", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *command, "--storage-path", str(tmp_path)],
        cwd=OLD, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    record = open_run(tmp_path, "older").record()
    after = list(read_ledger(tmp_path / "older" / "trials.jsonl"))
    assert after[: len(before)] == before and len(record.ended) == 10
    for number in (6, 7):
        trial = record.trials[number]
        assert trial.attempt == 2 and trial.setup["resumed_step"] >= 6
        assert [point.step for point in trial.points] == sorted({point.step for point in trial.points})
    measured = [e.metrics for e in after[len(before) :] if e.event is Kind.EVALUATION]
    assert measured and all(set(metrics or ()) == {"eval_loss"} for metrics in measured)
    completed = [t for t in record.ended if t.reason in (Reason.BUDGET, Reason.FLATLINE)]
    assert record.best and record.best.best_value == min(t.best_value or 9.0 for t in completed)
    told = json.loads(done.stdout)
    assert told["best"]["eval_loss"] == record.best.best_value == told["best"]["metrics"]["eval_loss"]


def test_a_search_keeps_its_objective(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.programs import measuring

    toy(run__program="tests.programs.measuring:Rising", search__num_trials=1, train__max_steps=2)
    monkeypatch.setattr(measuring.Rising, "OBJECTIVES", (LENGTH,))
    with pytest.raises(InputError, match="began to maximize accuracy, and its program now says to minimize answer_len"):
        resume_search(tmp_path, "toy", num_trials=2)
