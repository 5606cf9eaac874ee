"""What `train` makes of a run: the winner's point with nothing to search, and what is changed of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import finished_run
from tuner.config import Experiment
from tuner.contract import InputError, Program
from tuner.driver.plan import make_plan
from tuner.driver.training import Changes, changed, free_name, of_run, one_point, without_space
from tuner.importing import Permission
from tuner.results.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(finished_run(tmp_path))


def trained(folder: RunFolder, number: int | None = None, *, adapter: bool = False, **changes: Any) -> Experiment:
    return of_run(folder, number, Changes(**changes), Permission(), from_adapter=adapter)


def test_the_winner_with_nothing_to_search(folder: RunFolder) -> None:
    experiment = trained(folder)
    winner = folder.record().best
    assert winner is not None and winner.number == 1
    train = experiment.settings.model_dump()["train"]
    assert {name: train[name] for name in winner.params} == winner.params
    assert train["max_steps"] == 100 and experiment.scheduler.kind == "none"
    plan = make_plan(experiment)
    assert plan.recipe == {} and plan.rungs == () and experiment.search.num_trials == 1
    assert plan.notes[0] == "trains trial 1 of first, the winner"
    assert "the length stays 100 steps" in plan.notes[1]


def test_another_trial_at_another_length_with_seeds(folder: RunFolder) -> None:
    experiment = trained(folder, 3, epochs=3, seeds=3, overrides=("train.weight_decay=0.1",))
    train = experiment.settings.model_dump()["train"]
    assert (train["max_steps"], train["num_train_epochs"], train["weight_decay"]) == (None, 3.0, 0.1)
    assert train["learning_rate"] == folder.record().trials[3].params["learning_rate"]
    assert (experiment.search.num_trials, experiment.search.seeds) == (3, 3)
    plan = make_plan(experiment)
    assert plan.unit == "token" and plan.budget.epochs == 3
    assert plan.notes[0] == "trains trial 3 of first" and plan.notes[1].startswith("3 passes over the rows in place of")
    assert not [note for note in plan.notes if "the search ends after" in note]


def test_its_rows_are_others(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    experiment = trained(folder, flags={"data.train": str(tmp_path / "all.jsonl")})
    assert experiment.settings.model_dump()["data"]["train"] == str(tmp_path / "all.jsonl")


def test_on_from_its_adapter(folder: RunFolder) -> None:
    experiment = trained(folder, adapter=True)
    assert experiment.settings.model_dump()["train"]["init_adapter"] == str(folder.best)
    assert experiment.search.seed == 1, "the rows that it has just learned do not come first again"
    assert trained(folder, adapter=True, flags={"search.seed": 7}).search.seed == 7
    assert trained(folder, adapter=True, overrides=("search.seed=9",)).search.seed == 9
    with pytest.raises(InputError, match="the adapter of trial 2 of first is not kept") as found:
        trained(folder, 2, adapter=True)
    assert found.value.expected == "a trial whose adapter is: 1"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"number": 9}, "there is no trial 9 in first"),
        ({"epochs": -1.0}, "no number of passes"),
        ({"seeds": 0}, "got 0"),
        ({"seeds": 1000}, "got 1000"),
        ({"epochs": 2.0, "overrides": ("train.num_train_epochs=5",)}, "the same setting twice"),
        ({"overrides": ("train.lora_rank=5",)}, "did you mean"),
    ],
)
def test_what_cannot_be_trained(folder: RunFolder, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        trained(folder, **arguments)


def test_settings_that_were_edited(folder: RunFolder) -> None:
    folder.resolved.write_text(folder.resolved.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="is damaged, or was edited"):
        trained(folder)


def test_a_program_that_does_not_say_how(folder: RunFolder) -> None:
    from dataclasses import replace

    experiment = replace(trained(folder), program="tests.programs.toy:Toy")
    assert changed(experiment, None) == ([], [])
    with pytest.raises(InputError, match="Toy does not say how") as found:
        changed(experiment, 3.0)
    assert found.value.where == "--epochs"
    with pytest.raises(InputError, match="--from-adapter"):
        Program.retraining(None, adapter="here")


def test_seeds_beside_a_space(folder: RunFolder) -> None:
    from tuner.config import load_experiment

    plan = make_plan(without_space(load_experiment(None, (), one_point(3))))
    assert plan.space.size == 1 and not [note for note in plan.notes if "the search ends after" in note]
    with pytest.raises(InputError, match="the space demo has parameters to search"):
        make_plan(load_experiment(None, ("search.seeds=3",)))


def test_a_name_that_is_free(folder: RunFolder) -> None:
    assert free_name(folder, []) == "first-train"
    assert free_name(folder, ["first", "first-train", "first-train-2"]) == "first-train-3"
