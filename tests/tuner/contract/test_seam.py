"""The contract is the class: `tuner` looks up no optional attribute of a program, and names no setting of the shipped
one."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import tuner
from trainables.sft import SFT
from tuner.contract import Fit, Program, Setup

HOME = Path(tuner.__file__).parent
SOURCES = {file.relative_to(HOME).as_posix(): ast.parse(file.read_text()) for file in sorted(HOME.rglob("*.py"))}

ASKED = {
    "cli/following.py": {"stop"},
    "cluster/doctor.py": {"error"},
    "cluster/probe.py": {"importlib.import_module(name)"},
    "config/document.py": {"event"},
    "contract/loading.py": {"importlib.import_module(module)"},
    "driver/scheduler.py": {"tune_controller"},
    "failures.py": {"error"},
    "guest.py": {"value", "module", "sys.modules.get(found.__module__)"},
    "importing.py": {"importlib.import_module(own.module)", "known"},
    "ray_cluster/session.py": {"ray"},
    "redaction.py": {"value"},
    "report/lines.py": {"stream"},
    "results/ledger.py": {"self", "time"},
    "signals.py": {"handler"},
    "space/function.py": {"self._trial"},
    "streams.py": {"sys", "stream", "self.beneath", "error"},
    "watch/boards.py": {"parts"},
    "watch/listeners.py": {"listener"},
    "watch/trackers/__init__.py": {"importlib.import_module(module)"},
    "watch/trackers/base.py": {"tracker"},
}
"""By file: objects on which `getattr` and `hasattr` may be called: modules, streams, exceptions, views, trackers, and
objects of Ray's and Optuna's."""

KNOWN = {
    "cli/asking.py": {"lora_r"},  # an example in an error
    "cli/options.py": {"model_name_or_path", "model_revision", "trust_remote_code"},  # flags
    "config/experiment.py": {"learning_rate"},  # an example in an error
    "config/flags.py": {"model_name_or_path", "model_revision", "trust_remote_code"},  # flags
    "contract/loading.py": {"eval_steps", "trust_remote_code"},  # what 0.1 read of every program
    "report/table.py": {"learning_rate", "lora_r"},  # headings where a terminal is narrow
}
"""By file: the settings of SFT whose names may be in `tuner`."""


def test_no_program_and_no_engine_is_asked_what_it_has() -> None:
    asked = {name: set(_asked(tree)) for name, tree in SOURCES.items()}
    assert {name: more for name in asked if (more := asked[name] - ASKED.get(name, set()))} == {}
    assert sum(map(len, asked.values())) > 20, "the walk sees them"


def test_no_setting_of_sft_is_known() -> None:
    """Names of several words: those of one word (`model`, `seed`) are everybody's."""
    ours = {field.name for kind in (Setup, Fit) for field in fields(kind)}
    settings = {name for name in _settings(SFT.Settings) if "_" in name} - ours
    assert {"eval_steps", "trust_remote_code", "per_device_eval_batch_size", "compute_dtype", "lora_r"} <= settings
    words = {name: set(_words(tree)) for name, tree in SOURCES.items()}
    known = {name: words[name] & (settings | {"data_fingerprint", "SFTTrainer"}) for name in words}
    assert {name: more for name in known if (more := known[name] - KNOWN.get(name, set()))} == {}
    assert known["config/flags.py"] == KNOWN["config/flags.py"], "the walk sees them"


def test_every_hook_of_sft_is_the_contracts() -> None:
    """A method that only SFT has is one that nobody calls, or one that somebody calls behind the contract's back."""
    own = {name for name in vars(SFT) if not name.startswith("_")}
    assert own <= set(vars(Program)) | set(Program.__annotations__)


def test_every_hook_says_what_it_is_for() -> None:
    methods = {name: member for name, member in vars(Program).items() if not name.startswith("_")}
    hooks = {name: member for name, member in methods.items() if isinstance(member, classmethod) or callable(member)}
    assert len(hooks) > 18
    assert not [name for name, hook in hooks.items() if not (hook.__doc__ or "").strip()]


def _asked(tree: ast.AST) -> Iterator[str]:
    """Yields the objects whose attributes are looked up by name, and `__getattr__` where a class defines it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "inspect.getattr_static"):
            yield ast.unparse(node.args[0])
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            yield node.name


def _settings(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            yield from _settings(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _words(tree: ast.AST) -> Iterator[str]:
    """Yields all names in code: variables, attributes, and words of strings that are no docstrings."""
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docs:
                yield from re.findall(r"\w+", text)
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.Name(id=name) | ast.keyword(arg=str(name)):
                yield name
