"""The schema that editors read agrees with what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.tuner.config.programs import Tiny
from trainables.sft import SFT
from tuner.config import demo_path, experiment_schema, space_schema
from tuner.config.document import parse, read_document

ROOT = Path(__file__).parents[3]


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("program", [Tiny, SFT])
def test_schemas_are_valid(program: Any) -> None:
    schema = experiment_schema(program)
    validator(schema)
    validator(space_schema(program.PARAMETERS))
    own = ["model", "data", "train", *(["metrics"] if program is SFT else [])]
    assert list(schema["properties"]) == [*own, "search", "scheduler", "resources", "run"]


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_fit(path: Path) -> None:
    validator(space_schema(SFT.PARAMETERS)).validate(read_document(path).data)


def test_the_demo_fits() -> None:
    data = read_document(demo_path()).data
    validator(experiment_schema(SFT)).validate(data)
    if isinstance(data["search"]["space"], dict):
        validator(space_schema(SFT.PARAMETERS)).validate(data["search"]["space"])


def test_every_setting_of_the_search_is_described() -> None:
    schema = experiment_schema(SFT)
    for name in ("Search", "Run", "Asha", "NoScheduler", "Flatline", "Diverged", "Tpe"):
        for key, node in schema["$defs"][name]["properties"].items():
            assert key == "kind" or node.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        "model: {model_name_or_path: a/b, quantization: nf4}\n",
        "search: {sampler: random}\nscheduler: none\n",
        "search: {sampler: {kind: tpe, n_startup_trials: 5}}\nscheduler: {reduction_factor: 2, flatline: null}\n",
    ],
)
def test_accepted(text: str) -> None:
    validator(experiment_schema(Tiny)).validate(parse(text, "f")[0])


@pytest.mark.parametrize(
    "text",
    [
        "trian: {}\n",
        "train: {lora_r: many}\n",
        "search: {sampler: tpa}\n",
        "search: {num_trials: 0}\n",
        "run: {name: ../evil}\n",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator(experiment_schema(Tiny)).validate(parse(text, "f")[0])
