"""The embedded default as it is shipped: small, well formed, and without a leak between its splits."""

from __future__ import annotations

import json
import math
import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuner.config import demo_path, load_experiment
from tuner.demo import folder
from tuner.driver.plan import make_plan

SPLITS = ("train", "validation", "test")


@cache
def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder() / f"{name}.jsonl").read_text("utf-8").splitlines()]


@cache
def sources() -> dict[str, Any]:
    return json.loads((folder() / "sources.json").read_text("utf-8"))


@cache
def search() -> dict[str, Any]:
    return yaml.safe_load((folder() / "search.yaml").read_text("utf-8"))


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def packaged() -> list[Path]:
    return [path for path in folder().rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_config_and_package_mean_the_same_folder() -> None:
    assert demo_path().resolve() == folder() / "search.yaml"


def test_everything_together_stays_below_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in packaged()) <= 12_000_000


def test_the_files_can_be_read_by_everyone() -> None:
    assert [path.name for path in packaged() if path.stat().st_mode & 0o444 != 0o444] == []


def test_the_base_is_a_llama_of_one_to_two_million_fp32_parameters() -> None:
    with (folder() / "base" / "model.safetensors").open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F32"}
    count = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    assert 1_000_000 <= count <= 2_000_000
    assert count == sources()["base"]["parameters"]
    config = json.loads((folder() / "base" / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_the_tokenizer_has_an_end_and_another_token_to_pad_with() -> None:
    base = folder() / "base"
    config = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    added = {
        token["content"]: token["id"] for token in json.loads((base / "tokenizer.json").read_text())["added_tokens"]
    }
    model = json.loads((base / "config.json").read_text("utf-8"))
    assert config["eos_token"] != config["pad_token"]
    assert added[config["eos_token"]] == model["eos_token_id"]
    assert added[config["pad_token"]] == model["pad_token_id"]


@pytest.mark.parametrize("name", SPLITS)
def test_rows_are_prompts_and_completions(name: str) -> None:
    assert len(rows(name)) == sources()["rows"][name] >= 128
    assert {tuple(row) for row in rows(name)} == {("prompt", "completion")}
    for row in rows(name):
        assert row["prompt"].startswith(("def ", "async def ", "@"))
        assert row["prompt"].endswith('\n"""')
        assert row["completion"].strip() == row["completion"] != ""


@pytest.mark.parametrize("name", SPLITS)
def test_no_prompt_quotes_its_own_docstring(name: str) -> None:
    assert [row for row in rows(name) if f'"{row["completion"]}' in row["prompt"]] == []


@pytest.mark.parametrize(("held_out", "seen"), [("validation", "train"), ("test", "train"), ("test", "validation")])
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_no_row_has_a_copy_in_another_split(held_out: str, seen: str, field: str) -> None:
    known = [words(row[field]) for row in rows(seen)]
    copies = []
    for row in rows(held_out):
        ours = words(row[field])
        copies += [row[field] for other in known if len(ours & other) >= 0.7 * len(ours | other)]
    assert copies == []


def test_no_module_is_in_two_splits() -> None:
    files, row_modules = sources()["files"], sources()["row_modules"]
    tops = {name: {path.split("/")[0].removesuffix(".py") for path in files[name]} for name in SPLITS}
    assert not tops["train"] & tops["validation"]
    assert not tops["train"] & tops["test"]
    assert not tops["validation"] & tops["test"]
    assert all(set(row_modules[name]) <= set(files[name]) for name in SPLITS)


def test_the_base_was_trained_on_the_train_modules_alone() -> None:
    assert sources()["corpus"]["files"] == len(sources()["files"]["train"])


def test_the_licence_is_shipped_and_named() -> None:
    text = (folder() / "LICENSE-PSF.txt").read_text("utf-8")
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in text
    readme = (folder() / "README.md").read_text("utf-8")
    assert "LICENSE-PSF.txt" in readme
    assert "Python\nSoftware Foundation" in readme
    assert sources()["python"] in readme


def test_the_experiment_names_files_that_are_there() -> None:
    assert set(search()) <= {"model", "data", "train", "search", "scheduler", "run"}
    for name in (search()["model"]["model_name_or_path"], search()["data"]["train"], search()["data"]["validation"]):
        assert (folder() / name).exists(), name
    assert "test.jsonl" not in json.dumps(search())


def test_the_recipe_is_a_point_of_the_space() -> None:
    train, parameters = search()["train"], search()["search"]["space"]["parameters"]
    for name, parameter in parameters.items():
        if parameter["type"] == "choice":
            assert train[name] in parameter["values"], name
        else:
            assert parameter["low"] < train[name] < parameter["high"], name


def test_its_comments_name_the_rungs_and_evaluations_that_run() -> None:
    plan = make_plan(load_experiment(demo_path()))
    text, steps = demo_path().read_text("utf-8"), plan.budget.steps or 0
    rungs = [round(share * steps) for share in plan.rungs if share < 1]
    told = re.search(r"rungs at (\d+), (\d+) and (\d+) steps", text)
    assert told and [int(number) for number in told.groups()] == rungs
    told = re.search(r"# (\d+) steps: the first rung, at (\d+), lies at twice that", text)
    assert told and [int(number) for number in told.groups()] == [round(plan.warmup * steps), rungs[0]]
    assert rungs[0] == 2 * round(plan.warmup * steps)
