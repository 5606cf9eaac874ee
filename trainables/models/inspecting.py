"""Inspects the base before anything trains: in a process of its own, so that preparing rows needs no torch.

That process is `python -m trainables.models.inspecting`. It gets the settings as JSON on standard input, and writes its
answer as the last line of standard output.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.models import base_folder
from trainables.models.completeness import require_complete
from trainables.settings import ModelSettings
from tuner.contract import InputError, module_command

_PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: this process gets a signal when its parent dies."""


@dataclass(frozen=True)
class Inspected:
    """What was found out."""

    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    reach: Mapping[str, Any] = field(default_factory=dict)
    """What values of `target_modules` mean on the base, as reach.py has it; empty where that is not known."""

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Inspected:
        """From what `asdict` made of it. Raises KeyError and TypeError."""
        return cls(tuple(map(str, found["notes"])), dict(found["reach"]))


class Inspection:
    """Finds out, while rows are prepared, whether the checkpoint has every weight of its model, and which of its layers
    adapters can be put on."""

    def __init__(self, model: ModelSettings, folder: Path, kept: Path, files: Mapping[str, str]) -> None:
        """Starts it. folder: of the base's files. kept: the file that keeps the result for a resume. files: the
        fingerprints of the base that the result is valid for."""
        self._model, self._folder, self._kept = model, folder, kept
        self._key = json.dumps(
            [files, model.attn_implementation, *(version(name) for name in ("torch", "transformers", "peft"))]
        )
        self._process: subprocess.Popen[str] | None = None
        self._found = self._remembered()
        # Where this process has torch, `result` inspects: another process would import it again, in 4 s
        if self._found is not None or "torch" in sys.modules:
            return
        asked = json.dumps({"model": model.model_dump(mode="json"), "folder": str(folder)})
        self._process = subprocess.Popen(
            module_command("trainables.models.inspecting"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(asked)
            self._process.stdin.close()

    def result(self) -> Inspected:
        """What was found out. Raises InputError where the base would be trained with weights drawn at random."""
        if self._found is not None:
            return self._found
        if self._process is None:
            return self._remember(inspect(self._model, self._folder))
        assert self._process.stdout is not None
        said = self._process.stdout.read().splitlines()
        code = self._process.wait()
        try:
            answer: Mapping[str, Any] = json.loads(said[-1])
        except (IndexError, ValueError):
            return Inspected((f"the base's weights could not be compared with its config beforehand (exit code {code}"
                              "): each worker does it when it loads them",))  # fmt: skip
        if "error" in answer:
            raise InputError(**answer["error"])
        return self._remember(Inspected.from_dict(answer))

    def close(self) -> None:
        """Ends the process if it still runs. May be called twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _remembered(self) -> Inspected | None:
        if not self._kept.is_file():  # a pipe would block
            return None
        try:
            found = json.loads(self._kept.read_text(encoding="utf-8"))
            return Inspected.from_dict(found) if found["key"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _remember(self, found: Inspected) -> Inspected:
        beside = self._kept.with_name(f".{self._kept.name}.{uuid.uuid4().hex[:8]}")
        with suppress(OSError):  # the next session then inspects again
            beside.write_text(json.dumps({"key": self._key, **asdict(found)}), encoding="utf-8")
            beside.replace(self._kept)
        return found


def inspect(model: ModelSettings, folder: Path) -> Inspected:
    """Compares the checkpoint's tensors, by name and shape, with the model that transformers makes of config.json, and
    asks that model for its attention and its layers. Raises InputError where a weight would be random."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = base_folder.stored_quantized(config)
    notes: tuple[str, ...] = ()
    if stored not in ("", "nf4"):
        notes = (f"the base is stored quantized ({stored}) and trained as it is",)
    if "auto_map" in config:  # code that comes with the model, which only workers run
        return Inspected(notes)
    from trainables.models import kernels, loading, reach

    try:
        shape, found = loading.of_headers(model, folder)
    except InputError as error:
        if model.attention is None:
            raise
        loading.of_headers(model.model_copy(update={"attn_implementation": "auto"}), folder)
        raise kernels.refusal(model, error) from error
    notes += require_complete(found, config, model.model_name_or_path)
    if shape is None:  # its weights are stored quantized, and made from values
        return Inspected(notes)
    return Inspected(notes + kernels.notes(model, shape), reach.of(shape))


def _main() -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    asked = json.loads(sys.stdin.read())
    answer: dict[str, Any]
    try:
        answer = asdict(inspect(ModelSettings.model_validate(asked["model"]), Path(asked["folder"])))
    except InputError as error:
        parts = {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}
        answer = {"error": parts}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
