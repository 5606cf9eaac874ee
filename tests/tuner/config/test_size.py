"""Large files: the cost grows in proportion to the size, and of a thousand mistakes the first ones are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.sft import SFT
from tuner.config import load_experiment
from tuner.config.document import Document
from tuner.config.layers import Layers, Origin
from tuner.config.translate import MOST_TOLD
from tuner.contract import InputError
from tuner.space import load_space

OWN = "model: {model_name_or_path: org/base}\ndata: {train: org/rows}\n"


def refused(path: Path, text: str, *overrides: str) -> str:
    path.write_text(OWN + text)
    with pytest.raises(InputError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def nested(size: int) -> dict[str, Any]:
    """The text of a file with a space of so many parameters."""
    parameters = {f"p{n}": {"type": "choice", "values": [1, 2, 3]} for n in range(size)}
    return {"search": {"space": {"parameters": parameters}}, "train": {f"k{n}": {"a": n} for n in range(size)}}


def laid(size: int) -> None:
    document = Document(nested(size), "x.yaml")
    layers = Layers()
    layers.add_document(document, Path("/"))
    layers.add_document(document, Path("/"))  # over what is there
    for n in range(size):
        layers.add_value(("train", f"k{n}"), "replaced", Origin("--set", Path("/")))


def test_a_file_eight_times_as_large_costs_eight_times_as_much() -> None:
    """Sixty-four times, while every value looked through the origins of all others."""
    laid(100)
    small, large = min(seconds(lambda: laid(500)) for _ in range(3)), seconds(lambda: laid(4000))
    assert large < 24 * small, f"{small:.3f} s, {large:.3f} s"


@pytest.mark.parametrize(
    "line",
    ["  key{n}: {n}", "  learning_rat{n}: 1", "  key{n}: {{a: 1}}", "  key{n}: hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
)
def test_of_many_mistakes_the_first_are_told(line: str, tmp_path: Path) -> None:
    told = refused(tmp_path / "x.yaml", "train:\n" + "\n".join(line.format(n=n) for n in range(300)) + "\n")
    count = 600 if "hf_" in line else 300
    assert told.startswith(f"{count} errors in the input\n") and told.endswith(f"\n  and {count - MOST_TOLD} more")
    assert told.count("x.yaml:") == MOST_TOLD
    assert "x.yaml:4: " in told and "x.yaml:300: " not in told, "in the order of the file"
    assert "is not valid" not in told, "each of the first in full"


def test_of_many_unknown_sections_and_overrides_too(tmp_path: Path) -> None:
    told = refused(tmp_path / "x.yaml", "".join(f"part{n}: 1\n" for n in range(100)))
    assert told.startswith("100 errors") and told.endswith("and 80 more")
    told = refused(tmp_path / "x.yaml", "", *(f"train.key{n}=1" for n in range(100)))
    assert told.startswith("100 errors") and told.endswith("and 80 more")


def test_of_many_parameters_that_are_none() -> None:
    with pytest.raises(InputError) as caught:
        load_space({"parameters": {f"what{n}": {"type": "int", "low": 1, "high": 2} for n in range(100)}}, SFT)
    assert str(caught.value).startswith("100 errors") and str(caught.value).endswith("and 80 more")


def test_twenty_mistakes_are_told_whole(tmp_path: Path) -> None:
    told = refused(tmp_path / "x.yaml", "train:\n" + "".join(f"  key{n}: 1\n" for n in range(MOST_TOLD)))
    assert told.startswith("20 errors") and "\n  and " not in told


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("train:\n  " + "k" * 1000 + ": 1\n", ()),
        ("train:\n  ? " + "k" * 100_000 + "\n  : 1\n", ()),
        ("s" * 1000 + ": 1\n", ()),
        ("train:\n  learning_rate: " + "v" * 100_000 + "\n", ()),
        ("search:\n  space:\n    parameters:\n      " + "p" * 1000 + ": {type: int, low: 1, high: 2}\n", ()),
        ("", (f"train.{'k' * 10_000}=1",)),
        ("", (f"train.learning_rate={'v' * 10_000}",)),
        ("", (f"train.learning_rate{'v' * 10_000}",)),
    ],
)
def test_a_long_name_or_value_is_cut_in_words(text: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(OWN + text)
    with pytest.raises(InputError) as caught:
        experiment = load_experiment(path, overrides)
        load_space(experiment.space, SFT)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("depth", [20, 500, 5000, 100_000])
def test_a_deep_name_is_refused(depth: int, tmp_path: Path) -> None:
    """Once a RecursionError, from 500 names on."""
    deep = "train" + ".a" * depth
    assert "nested too deeply" in refused(tmp_path / "x.yaml", "", f"{deep}=1")
    space = f"search:\n  space:\n    parameters: {{}}\n    settings:\n      ? {deep}\n      : 1\n"
    assert "nested too deeply" in refused(tmp_path / "x.yaml", space)
