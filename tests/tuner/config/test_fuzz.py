"""Any value at any key gives an experiment or an InputError, and never a traceback."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tuner.config.programs import Tiny
from tuner.config import experiment_schema, load_resolved
from tuner.config.words import key_paths
from tuner.contract import InputError
from tuner.space import experiment_space, load_space

BASE: dict[str, Any] = {
    "model": {"model_name_or_path": "a/b"},
    "data": {"train": "c/d"},
    "search": {"space": {"parameters": {"lora_r": {"type": "int", "low": 1, "high": 8}}}},
    "run": {"program": "tests.tuner.config.programs:Tiny"},
}

KEYS = [key for key in key_paths(experiment_schema(Tiny)) if key[:2] != ("run", "program")]  # type: ignore[arg-type]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["", "tpe", "nf4", "none", "a/b", "true", "../x", "lora", "x:y", "5", "~", "fixed", "\ud800", "a\x00b"]
    ),
    st.text(max_size=8),
    st.sampled_from([10**400, -1, 0, 1e308, float("nan")]),
)
NAMES = st.sampled_from(
    ["kind", "type", "low", "high", "values", "when", "parameters", "settings", "lora_r", "name", "x", "0", "a.b"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)


def laid(key: tuple[Any, ...], value: Any, data: Any) -> Any:
    if not key:
        return value
    held = data if isinstance(data, dict) else {}
    return {**held, key[0]: laid(key[1:], value, held.get(key[0]))}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_at_any_key(key: tuple[str, ...], value: Any) -> None:
    try:
        experiment_space(load_resolved(laid(key, value, BASE)))
    except InputError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*BASE, "train", "scheduler", "x"]), VALUES))
def test_any_sections(data: dict[str, Any]) -> None:
    try:
        load_resolved({**BASE, **data, "run": BASE["run"]})
    except InputError as error:
        assert str(error)


PARAMETER = st.fixed_dictionaries(
    {"type": st.sampled_from(["float", "int", "choice", "x"])},
    optional={
        "low": SCALARS,
        "high": SCALARS,
        "log": SCALARS,
        "step": SCALARS,
        "values": VALUES,
        "when": st.one_of(VALUES, st.dictionaries(st.sampled_from(["lora_r", "use_dora", "x"]), VALUES, max_size=2)),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*Tiny.PARAMETERS, "train.lora_r", "max_length", "x"]), PARAMETER, max_size=4))
def test_any_parameters(parameters: dict[str, Any]) -> None:
    try:
        space = load_space({"parameters": parameters}, Tiny)
        assert len(space.describe()) == len(space.parameters)
        assert space.to_dict()
        assert space.size is None or space.size > 0
    except InputError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc.=[]{}:'\"#~ \n1e-", max_size=30))
def test_any_override(text: str) -> None:
    try:
        load_resolved(BASE, overrides=[f"train.lora_r{text}", text])
    except InputError as error:
        assert str(error)
