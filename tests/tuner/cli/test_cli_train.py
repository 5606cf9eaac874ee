"""`train` takes a run, a search file, or settings alone; what it is given otherwise is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.runs import finished_run
from tuner.cli import run
from tuner.cli.train import to_train
from tuner.contract import InputError
from tuner.driver.plan import make_plan
from tuner.driver.training import Changes

DEMO = Path(__file__).resolve().parents[3] / "tuner" / "demo"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    finished_run(tmp_path / "runs")
    (tmp_path / "first").mkdir()  # a folder of that name is no run
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_by_its_name_and_by_its_folder(here: Path) -> None:
    by_name = to_train(Path("first"), Changes(), {})
    by_folder = to_train(Path("runs/first"), Changes(), {})
    assert by_name.settings == by_folder.settings
    for experiment in (by_name, by_folder):
        assert (experiment.run.name, experiment.storage_path) == ("first-train", here / "runs")
    named = to_train(Path("first"), Changes(flags={"run.name": "again", "run.storage_path": str(here / "runs")}), {})
    assert named.run.name == "again"


def test_a_search_file(here: Path) -> None:
    (here / "mine.yaml").write_text((DEMO / "search.yaml").read_text().replace("max_length: 128", "max_length: 96"))
    for name in ("base", "train.jsonl", "validation.jsonl"):
        (here / name).symlink_to(DEMO / name)
    experiment = to_train(Path("mine.yaml"), Changes(epochs=2.0, seeds=2), {})
    settings = experiment.settings.model_dump()
    assert settings["data"]["max_length"] == 96
    assert (settings["train"]["max_steps"], settings["train"]["num_train_epochs"]) == (None, 2.0)
    assert (experiment.search.num_trials, experiment.run.name) == (2, None)
    assert experiment.notes[0].startswith("2 passes over the rows in place of 100 steps")


def test_no_file_at_all(here: Path) -> None:
    flags = {"model.model_name_or_path": "org/base", "data.train": str(DEMO / "train.jsonl")}
    experiment = to_train(None, Changes(flags=flags), {})
    assert experiment.settings.model_dump()["model"]["model_name_or_path"] == "org/base"
    assert experiment.search.num_trials == 1 and make_plan(experiment).recipe == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected: a run, a search file, or --model and --data"),
        (["frist"], "one of: first"),
        (["runs/frist"], "no file or folder"),
        (["first", "--trial", "12"], "expected: 0 to 7"),
        (["first", "--trial", "2", "--from-adapter"], "the adapter of trial 2 of first is not kept"),
        (["first", "--seeds", "many"], "'many' is not a valid integer"),
        (["--model", "org/base", "--data", "org/rows", "--trial", "1"], "--trial: is about a trial of a run"),
        (["--model", "org/base", "--data", "org/rows", "--from-adapter"], "--from-adapter: is about a trial of a run"),
    ],
)
def test_what_is_refused(here: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *arguments]) == 2
    written = capsys.readouterr()
    assert told in written.err and written.out == "" and "Traceback" not in written.err
    assert [path.name for path in (here / "runs").iterdir()] == ["first"]


def test_a_search_without_a_winner(here: Path) -> None:
    ledger = here / "runs" / "first" / "trials.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="no trial of first has ended with a validation loss"):
        to_train(Path("first"), Changes(), {})
