"""The journal that one process writes, and the window of trials that a sampler sees."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.programs.toy import Toy
from tuner.config import Qmc, Tpe
from tuner.contract import Objective, Reason, Verdict
from tuner.results.records import Point, TrialRecord
from tuner.space import load_space
from tuner.study import samplers
from tuner.study.journal import BEST, Journal, Storage, Window
from tuner.study.study import Study

SPACE = load_space(
    {
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
            "batch_size": {"type": "int", "low": 1, "high": 64},
        }
    },
    Toy,
)

ATTRIBUTES = {"state": "running", "model": "org/base"}


def make(path: Path, sampler: Any, records: Any = ()) -> Study:
    recipe = {"learning_rate": 1e-3, "batch_size": 8}
    return Study(
        path, name="first", space=SPACE, sampler=sampler, num_trials=100, seed=0, recipe=recipe, records=records,
        attributes=ATTRIBUTES,
    )  # fmt: skip


def run(study: Study, count: int) -> list[TrialRecord]:
    """Asks for trials and ends each in one of four ways; gives what the ledger would have of them."""
    rng, records = random.Random(1), []
    for _ in range(count):
        suggestion = study.ask()
        assert suggestion is not None
        losses = [4.0 + abs(suggestion.params["batch_size"] - 30) / 10, 3.0 + rng.random()]
        reason = rng.choice([Reason.BUDGET, Reason.RUNG, Reason.RUNG, Reason.DIVERGED, Reason.ERROR])
        for step, loss in enumerate(losses, start=1):
            study.report(suggestion.number, step, loss)
        record = TrialRecord(
            number=suggestion.number, params=dict(suggestion.params), distributions=dict(suggestion.distributions),
            points=[Point(step, 0, loss, resource=step) for step, loss in enumerate(losses, start=1)],
            reason=reason, status=reason.status, started=1.0, ended=2.0,
        )  # fmt: skip
        study.tell(suggestion.number, Verdict(reason), record.best_value)
        records.append(record)
    return records


def test_another_program_reads_what_this_one_knows(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal", Tpe())
    run(study, 20)
    study.ask()  # one is running
    other = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    read = optuna.load_study(study_name="first", storage=other)
    assert read.trials == study.optuna.trials
    assert read.trials[-1].state is TrialState.RUNNING


def test_a_line_is_in_the_file_at_once_and_never_read_back(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    backend = Journal(path)
    backend.append_logs([{"op_code": 1, "worker_id": "a", "x": 0.1 + 0.2}])
    assert len(path.read_text().splitlines()) == 1
    path.write_text("")
    assert [log["x"] for log in backend.read_logs(0)] == [0.1 + 0.2]
    assert not list(backend.read_logs(1))


def drawn(number: int, rng: random.Random) -> FrozenTrial:
    """Draws a finished trial of any kind: with tied values, without a value, infeasible."""
    state = rng.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL])
    steps = {s: round(rng.random(), 1) for s in range(rng.randrange(4))}
    trial = create_trial(
        state=state,
        value=round(rng.random(), 2) if state is TrialState.COMPLETE else None,
        params={"x": rng.random()},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values=steps,
        system_attrs={"constraints:trainable": rng.random()} if rng.random() < 0.2 else {},
    )
    trial.number = number
    return trial


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", range(4))
def test_the_window_has_what_tpe_takes_for_good_and_the_newest(
    seed: int, direction: Literal["minimize", "maximize"]
) -> None:
    rng = random.Random(seed)
    trials = [drawn(number, rng) for number in range(400)]
    window = Window(60, Objective("score", direction=direction))
    for trial in rng.sample(trials, len(trials)):  # they end in another order than they began
        window.add(trial)
    shown = window.trials()
    seen = [t for t in trials if t.state is not TrialState.FAIL]
    study = optuna.create_study(direction=direction)
    best, _ = _split_trials(study, seen, BEST)
    below, above = _split_trials(study, shown, BEST)
    assert [t.number for t in below] == [t.number for t in best]
    others = [t.number for t in seen if t not in best]
    assert [t.number for t in above] == others[-(60 - BEST) :]


def test_up_to_its_size_the_window_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = make(tmp_path / "narrow", Tpe())
    with monkeypatch.context() as patch:
        patch.setattr(samplers, "WINDOW", None)
        wide = make(tmp_path / "wide", Tpe())
    first, second = run(narrow, 60), run(wide, 60)
    assert [r.params for r in first] == [r.params for r in second]


def test_beyond_its_size_a_resume_still_suggests_what_would_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "WINDOW", 40)
    study = make(tmp_path / "study.journal", Tpe())
    records = run(study, 90)
    again = make(tmp_path / "again", Tpe(), records)
    assert run(study, 3)[0].params == (following := run(again, 3))[0].params
    assert [r.number for r in following] == [90, 91, 92]


def test_only_the_window_is_shown_while_a_sampler_looks(tmp_path: Path) -> None:
    storage = Storage(Journal(tmp_path / "study.journal"), Window(size=30))
    study = optuna.create_study(storage=storage)
    for value in range(50):
        study.add_trial(create_trial(value=value))
    running = study.ask()
    with storage.narrowed():
        shown = study.get_trials(deepcopy=False)
    assert [t.number for t in shown] == [*range(25), *range(45, 50), running.number]
    assert len(study.trials) == 51


def test_a_quasi_random_sequence_goes_on_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = make(path, Qmc())
    records = run(study, 10)
    undisturbed = study.ask()
    path.rename(tmp_path / "first")
    before = make(tmp_path / "second", Qmc())
    assert [r.params for r in run(before, 10)] == [r.params for r in records]
    resumed = make(tmp_path / "second", Qmc(), records)
    assert resumed.ask() == undisturbed
