"""The tools that agents get: their schemas, what they answer, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.chaos.runs import finished_run
from trainables.sft import SFT
from tuner import open_run, plan
from tuner.config import experiment_schema
from tuner.contract import InputError
from tuner.mcp.tools import TOOLS, Place, chosen, flat, offered
from tuner.report.machine import dump

EXPERIMENT = {
    "model": {"model_name_or_path": "org/base"},
    "data": {"train": "org/rows"},
    "train": {"max_steps": 60, "num_train_epochs": None},
    "search": {"num_trials": 4, "space": {"parameters": {"lora_r": {"type": "choice", "values": [8, 16]}}}},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "runs")
    return Place(tmp_path / "runs")


def call(name: str, place: Place, /, **arguments: Any) -> Any:
    return json.loads(dump(chosen(name, writes=True).call(arguments, place)))


def test_the_schema_of_an_experiment_is_that_of_search_files() -> None:
    whole = experiment_schema(SFT)
    for name in ("plan", "search"):
        schema = chosen(name, writes=True).schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["properties"]["experiment"]["properties"] == whole["properties"]
        valid = jsonschema.Draft202012Validator(schema).is_valid
        assert valid({"experiment": EXPERIMENT}) and valid({})
        assert not valid({"experiment": {**EXPERIMENT, "trian": {}}}) and not valid({"experiments": {}})
        assert not valid({"experiment": {**EXPERIMENT, "train": {"max_steps": "many"}}})
    assert all(tool.schema()["additionalProperties"] is False and tool.description for tool in TOOLS)
    assert all("description" in told for tool in TOOLS for told in tool.schema()["properties"].values())


def test_only_what_reads_is_offered_without_leave() -> None:
    assert list(offered(writes=False)) == ["plan", "status", "show"]
    assert list(offered(writes=True)) == ["plan", "search", "status", "show", "stop", "add"]
    for name in ("search", "stop", "add"):
        with pytest.raises(InputError, match="this server only reads") as found:
            chosen(name, writes=False)
        assert "--allow-write" in found.value.remedy
    with pytest.raises(InputError, match="there is no tool 'delete'"):
        chosen("delete", writes=True)


def test_a_plan(place: Place) -> None:
    told = call("plan", place, experiment=EXPERIMENT)
    own = json.loads(dump(plan(settings=flat(EXPERIMENT)).to_dict()))
    assert {name: told[name] for name in own} == own
    assert told["budget"] == {"steps": 60, "epochs": None} and told["recipe"] == {"lora_r": 16}
    assert told["data"] is None and told["refused"] is None  # the rows are on the hub


def test_a_plan_of_a_file_with_changes(place: Place, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("model: {model_name_or_path: org/base}\ndata: {train: rows.jsonl}\n")
    (tmp_path / "rows.jsonl").write_text('{"nothing": "known"}\n')
    told = call("plan", place, file="my.yaml", experiment={"search": {"num_trials": 3}})
    assert told["experiment"]["search"]["num_trials"] == 3


def test_what_is_known_of_runs(place: Place) -> None:
    listed = call("status", place)
    assert [(run["name"], run["state"]) for run in listed["runs"]] == [("first", "done")]
    run = open_run("first", place.storage_path)
    assert call("status", place, name="first") == json.loads(dump(run.status()))
    assert call("show", place, name="first", trial=3) == json.loads(dump(run.show(3)))
    assert call("show", place, name="first")["number"] == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("status", {"name": "frist"}, "there is no run 'frist'"),
        ("status", {"name": "../first"}, "name: 1 to 64 letters"),
        ("status", {"nmae": "first"}, "nmae: Extra inputs are not permitted"),
        ("show", {}, "name: Field required"),
        ("show", {"name": "first", "trial": 77}, "there is no trial 77 in first"),
        ("show", {"name": "first", "trial": "best"}, "trial: Input should be a valid integer"),
        ("stop", {"name": "first"}, "no driver runs the search 'first'"),
        ("add", {"name": "first", "params": {"lora_r": 8}}, "no driver runs the search 'first'"),
        ("plan", {"experiment": {"train": {"lerning_rate": 1}}}, "did you mean"),
        ("plan", {"file": "no.yaml"}, "no file or folder"),
        ("search", {"name": "new", "experiment": {"train": {"lerning_rate": 1}}}, "did you mean"),
        ("search", {"name": "first"}, "the run 'first' is already there"),
    ],
)
def test_what_is_refused(place: Place, name: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        call(name, place, **arguments)
    assert [path.name for path in place.storage_path.iterdir()] == ["first"]
