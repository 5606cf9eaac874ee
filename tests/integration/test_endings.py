"""Every way a trial can end, on real Ray: what the ledger, the study and the exit code say of it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.integration.conftest import TOY
from tests.tuner.config.test_experiment import BEFORE_RESOURCES
from tuner.contract import InputError, Reason, Status
from tuner.driver.resolved_settings import digest_of
from tuner.driver.session import Outcome, resume_search
from tuner.report.summary import is_interrupted
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind, Ledger, read_ledger
from tuner.results.records import SearchRecord

Toy = Callable[..., Outcome]


def slow(*values: Any) -> Any:
    """A case that the default run leaves out, because another case tests the same kind of ending."""
    return pytest.param(*values, marks=pytest.mark.slow)


def study_of(outcome: Outcome) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(outcome.path / "study.journal")))
    return optuna.load_study(study_name=outcome.path.name, storage=storage)


def states(outcome: Outcome) -> list[str]:
    return [t.state.name for t in study_of(outcome).trials]


def assert_consistent(outcome: Outcome) -> None:
    """Checks that ledger, record and study say the same, and that no trial is left running."""
    record = SearchRecord.fold(read_ledger(outcome.path / "trials.jsonl"))
    assert {n: (t.status, t.reason, t.best_value) for n, t in record.trials.items()} == {
        n: (t.status, t.reason, t.best_value) for n, t in outcome.record.trials.items()
    }
    assert sorted(record.trials) == list(range(len(record.trials)))
    trials = study_of(outcome).trials
    assert len(trials) == len(record.trials)
    assert "RUNNING" not in states(outcome) and "WAITING" not in states(outcome)
    for trial in trials:
        mine = record.trials[trial.number]
        if mine.status is Status.COMPLETED:
            assert trial.state.name == "COMPLETE" and trial.value == mine.best_value
        elif mine.status is Status.PRUNED:
            assert trial.state.name == "PRUNED"
            assert all(math.isfinite(v) for v in trial.intermediate_values.values())
        else:
            assert trial.state.name == "FAIL"


def test_a_search_stops_trials_at_rungs_and_finds_a_better_one(toy: Toy) -> None:
    outcome = toy(search__num_trials=12)
    assert outcome.exit_code == 0
    assert_consistent(outcome)
    told = study_of(outcome).user_attrs
    assert told["state"].startswith("done: 12 of 12 trials ended; best: trial ")
    assert told["recipe"] == "learning_rate 0.001" and told["budget"] == "12 trials of at most 27 steps"
    counts = outcome.record.counts["reason"]
    assert counts["rung"] >= 1 and counts["budget"] >= 1
    recipe, best = outcome.record.recipe, outcome.record.best
    assert recipe and recipe.reason is Reason.BUDGET, "the recipe always runs its whole budget"
    assert best and best.best_value < recipe.best_value  # type: ignore[operator]
    assert outcome.record.trials[0].params == {"learning_rate": 1e-3}
    pruned = [t for t in outcome.record.trials.values() if t.reason is Reason.RUNG]
    assert all("rung" in t.message and "needed" in t.message for t in pruned)
    manifest = json.loads((outcome.path / "best" / "manifest.json").read_text())
    assert manifest["eval_loss"] == best.best_value
    assert json.loads((outcome.path / "best" / "adapter.json").read_text())["loss"] == best.best_value
    kept = {int(p.name) for p in (outcome.path / "adapters").iterdir()}
    assert len(kept - {0}) <= 3 and {0, best.number} <= kept, "the best three, and the recipe to compare with"
    pids = {t.setup["pid"] for t in outcome.record.trials.values()}
    assert len(pids) <= outcome.record.workers, "a worker serves many trials"


@pytest.mark.parametrize(
    ("behaviour", "status", "reason", "state", "code"),
    [
        ("nan", Status.PRUNED, Reason.DIVERGED, "PRUNED", 0),
        slow("inf", Status.PRUNED, Reason.DIVERGED, "PRUNED", 0),
        slow("none", Status.FAILED, Reason.ERROR, "FAIL", 3),
        ("raise", Status.FAILED, Reason.ERROR, "FAIL", 3),
        ("exit", Status.FAILED, Reason.INFRASTRUCTURE, "FAIL", 3),
        ("out_of_memory", Status.FAILED, Reason.OUT_OF_MEMORY, "PRUNED", 3),
        ("flat", Status.COMPLETED, Reason.FLATLINE, "COMPLETE", 0),
    ],
)
def test_one_bad_trial_ends_alone(
    toy: Toy, behaviour: str, status: Status, reason: Reason, state: str, code: int
) -> None:
    outcome = toy(
        train__behaviour=behaviour, train__misbehaving=[0], search__num_trials=4, resources__max_concurrent_trials=1
    )
    first = outcome.record.trials[0]
    assert (first.status, first.reason) == (status, reason), first.ending
    assert states(outcome)[0] == state
    assert len(outcome.record.ended) == 4 and outcome.exit_code == code
    assert "RUNNING" not in states(outcome)
    if reason in (Reason.DIVERGED, Reason.OUT_OF_MEMORY):
        assert study_of(outcome).trials[0].constraints == {"trainable": 1.0}


@pytest.mark.parametrize("behaviour", ["frozen", "data"])
def test_a_fault_of_the_setup_stops_the_search_at_once(toy: Toy, behaviour: str) -> None:
    outcome = toy(
        train__behaviour=behaviour,
        train__misbehaving=[1, 2, 3, 4, 5, 6, 7],
        search__num_trials=8,
        resources__max_concurrent_trials=1,
    )
    assert outcome.exit_code == 1
    assert outcome.record.trials[1].reason == behaviour
    assert len(outcome.record.trials) == 2, "no further trial was burnt"
    assert outcome.record.halt_message and outcome.record.halt_remedy
    assert outcome.record.outcome == "halted"
    assert "RUNNING" not in states(outcome)


def test_a_run_folder_of_before_resumes(ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial gets stood in `scheduler:` and `run:` when its settings were written."""
    monkeypatch.setenv("TUNER_ALLOW_MODULES", TOY.partition(":")[0])
    folder = RunFolder(tmp_path / "before")
    shutil.copytree(BEFORE_RESOURCES, folder.path)
    with closing(Ledger(folder.ledger, [])) as ledger:
        ledger.append(Kind.SEARCH, details={"name": "before", "num_trials": 2, "settings": digest_of(folder.resolved)})
    outcome = resume_search(tmp_path, "before", num_trials=3)
    assert outcome.exit_code == 0 and len(outcome.record.ended) == 3
    told = study_of(outcome).user_attrs
    assert told["state"].startswith("done: 3 of 3 trials ended") and told["budget"] == "3 trials of at most 27 steps"
    sessions = [e.details for e in read_ledger(folder.ledger) if e.event is Kind.SEARCH]
    assert (sessions[-1]["cpus_per_trial"], sessions[-1]["gpus_per_trial"], sessions[-1]["workers"]) == (0.5, 0.0, 1)


def test_a_flat_trial_may_win(toy: Toy) -> None:
    outcome = toy(
        train__behaviour="flat", train__misbehaving=[0], search__num_trials=2, resources__max_concurrent_trials=1
    )
    assert outcome.record.best and outcome.record.best.number == 0
    assert (outcome.path / "best" / "manifest.json").exists()


def test_epochs_are_compared_by_tokens_and_a_space_that_is_used_up_ends_the_search(toy: Toy) -> None:
    space = {"parameters": {"batch_size": {"type": "choice", "values": [8, 16, 32]}}}
    outcome = toy(train__num_train_epochs=2.0, search__space=space, search__num_trials=5)
    assert outcome.exit_code == 0
    lengths = {t.params["batch_size"]: t.max_steps for t in outcome.record.trials.values()}
    assert lengths[8] == 250
    assert sorted(lengths) == [8, 16, 32] and len(outcome.record.trials) == 3, "five were asked for"
    assert outcome.record.outcome == "done" and not is_interrupted(outcome.record)
    assert any("has 3 points; each runs once" in note for note in outcome.record.notes)
    for trial in outcome.record.trials.values():
        for point in trial.points:
            assert point.resource == round(200_000 * point.step / trial.max_steps)  # type: ignore[operator]


def test_without_a_scheduler_every_trial_runs_its_budget(toy: Toy) -> None:
    outcome = toy(scheduler__kind="none", search__num_trials=4)
    assert {t.reason for t in outcome.record.ended} == {Reason.BUDGET}


@pytest.mark.parametrize("sampler", ["grid", "rungs", slow("gp"), slow("cmaes"), slow("qmc")])  # random: test_packed.py
def test_every_sampler_runs(toy: Toy, sampler: str) -> None:
    space: dict[str, Any] = {
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
            "batch_size": {"type": "int", "low": 1, "high": 64},
        }
    }
    if sampler == "grid":
        space = {"parameters": {"batch_size": {"type": "choice", "values": [8, 16]}}}
    trials = 2 if sampler == "grid" else 7
    outcome = toy(search__sampler=sampler, search__space=space, search__num_trials=trials)
    assert outcome.exit_code == 0
    assert_consistent(outcome)


def test_bad_data_leaves_nothing_behind(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the toy data is empty"):
        toy(unprepared="input")
    assert not (tmp_path / "toy").exists(), "the name is free again"


def test_a_fault_found_while_preparing_halts_the_search(toy: Toy) -> None:
    outcome = toy(unprepared="fault")
    assert outcome.exit_code == 1 and not outcome.record.trials
    assert outcome.record.halt_reason == "data" and outcome.record.halt_remedy == "look at the template"


def test_a_resume_adds_trials_and_repeats_none_wherever_the_run_lies(toy: Toy, tmp_path: Path) -> None:
    first = toy(search__num_trials=4)
    before = {n: (t.trial, t.best_value) for n, t in first.record.trials.items()}
    with pytest.raises(InputError, match="already there"):
        toy(search__num_trials=4)
    with pytest.raises(InputError, match="already has 4 trials"):
        resume_search(tmp_path, "toy", num_trials=3)
    second = resume_search(tmp_path, "toy", num_trials=9)
    assert second.exit_code == 0 and len(second.record.ended) == 9
    assert {n: (t.trial, t.best_value) for n, t in second.record.trials.items() if n < 4} == before
    assert_consistent(second)
    started = [e.number for e in read_ledger(second.path / "trials.jsonl") if e.event is Kind.STARTED]
    assert sorted(started) == list(range(9)), "each trial was started once"
    pruned = [t for n, t in second.record.trials.items() if n >= 4 and t.reason is Reason.RUNG]
    assert pruned, "rungs were there from the first trial of the resumed session on"

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "toy").rename(tmp_path / "elsewhere" / "toy")
    moved = resume_search(tmp_path / "elsewhere", "toy", num_trials=10)
    manifest = json.loads((moved.path / "best" / "manifest.json").read_text())
    assert moved.record.best and manifest["trial"] == moved.record.best.number, "a moved run keeps its winner"


def test_every_running_trial_has_a_row_in_the_dashboard(toy: Toy) -> None:
    import ray
    from ray.util.state import list_tasks

    seen: set[str] = set()
    address = ray.get_runtime_context().gcs_address  # other Rays may run on this machine
    row = "toy · trial 0 lr=1.0e-3"

    def state() -> list[str]:
        return [task.state for task in list_tasks(address, filters=[("name", "=", row)], limit=100)]

    def look(event: Event) -> None:
        if event.event is Kind.EVALUATION and "RUNNING" not in seen:  # a process takes its time on a busy machine
            seen.update(state())

    outcome = toy([look], train__pace=0.7, search__num_trials=1)
    assert outcome.exit_code == 0
    assert "RUNNING" in seen
    deadline = time.monotonic() + 30  # Ray hears of it within a second
    while "RUNNING" in state() and time.monotonic() < deadline:
        time.sleep(0.3)
    assert "RUNNING" not in state(), "the row ends when its trial does"


def broken_space(trial: optuna.Trial) -> dict[str, Any]:
    if trial.number == 2:
        raise KeyError("forgotten")
    rate = 1e9 if trial.number == 7 else 1e-3
    return {"learning_rate": trial.suggest_float("learning_rate", rate / 2, rate * 2)}


def test_a_space_function_that_fails_ends_the_search_with_what_it_had(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="broken_space raised KeyError: 'forgotten'"):
        toy(search__space="tests.integration.test_endings:broken_space", resources__max_concurrent_trials=1)
    record = SearchRecord.fold(read_ledger(tmp_path / "toy" / "trials.jsonl"))
    assert record.finished and len(record.ended) == 2
    assert (tmp_path / "toy" / "best" / "manifest.json").is_file()


def test_a_program_that_answers_nonsense_fails_its_trial_alone(toy: Toy) -> None:
    outcome = toy(train__behaviour="nonsense", train__misbehaving=[1], search__num_trials=3)
    assert outcome.exit_code == 3
    assert outcome.record.trials[1].reason is Reason.ERROR and "answered str" in outcome.record.trials[1].message
    assert len(outcome.record.ended) == 3
