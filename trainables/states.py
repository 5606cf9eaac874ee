"""A trial's state on disk: one safetensors file, which is used only if it is complete, and the file before it.

A state is nested plain data with tensors in it (weights, moments, random generators). The tensors are the file's; the
rest is JSON in its header, with a SHA-256 over both, because safetensors notices a file cut short but no flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tuner.contract import CHECKPOINT_REQUEST, STATE, Assignment, Evaluation

SHARE = 0.02
"""Share of a trial's time that saving its state may take."""
AT_LEAST_S = 2.0
"""Least seconds between two states: a trial that has trained for less may as well begin anew."""
EVERY = "TUNER_STATE_EVERY_S"
"""Environment variable: seconds between two states, whatever they cost; 0 saves at every evaluation."""
_NEWEST, _BEFORE = "state.safetensors", "state.before.safetensors"
_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


@dataclass(frozen=True)
class SavedState:
    """A state that was found on disk."""

    values: dict[str, Any]
    """Nested plain data with tensors in it, as it was saved."""
    path: Path
    """The file."""

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation that the state was saved with; with its adapter, where that was the trial's best."""
        evaluation = Evaluation(**self.values["evaluation"])
        return replace(evaluation, adapter=str(self.folder / "adapter")) if self.values["is_best"] else evaluation

    @property
    def folder(self) -> Path:
        """The folder of the attempt that saved it."""
        return self.path.parent.parent


class DamagedState(Exception):
    """A file that is not a complete state; the message says why."""


def identity(task: Assignment, max_steps: int, **more: Any) -> dict[str, Any]:
    """What a state's header must name as its trial, so that this trial can continue from it. more: what else must be
    equal."""
    params = json.loads(json.dumps(dict(task.params)))
    return {**more, "number": task.number, "seed": task.seed, "max_steps": max_steps, "params": params}


def header(trial: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """What every state begins with: the trial's identity, and the evaluation that it is saved with."""
    plain = {**evaluation.to_dict(), "adapter": None}
    return {"trial": trial, "evaluation": plain, "is_best": evaluation.adapter is not None}


class SaveSchedule:
    """Says when a state is to be saved: so rarely that saving takes `SHARE` of the time, and besides when the driver
    asks for one and at the steps after which the trial may be parked."""

    def __init__(self, folder: Path, always: Collection[int] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """folder: the attempt's own. always: the steps after which a state is saved in any case. clock: in seconds."""
        self._clock, self._always = clock, always
        self._request = folder / STATE / CHECKPOINT_REQUEST
        self._cost = 0.0
        """Seconds that the last save took."""
        self._last = clock()
        every = os.environ.get(EVERY)
        self._fixed = None if every is None else float(every)

    def due(self, step: int) -> bool:
        """Whether a state is to be saved with the evaluation after `step`."""
        if step in self._always:
            return True
        wait = max(AT_LEAST_S, self._cost / SHARE) if self._fixed is None else self._fixed
        return self._clock() - self._last >= wait or self._request.exists()

    def save(self, folder: Path, values: Mapping[str, Any]) -> None:
        """Saves a state, and notes how long that took. If it cannot be written, logs that, and the trial goes on."""
        began = self._clock()
        try:
            save(folder, values)
        except (OSError, SafetensorError) as error:  # safetensors has its own for a failing write
            logging.getLogger(__name__).warning("the state below %s was not saved: %s", folder, error)
            Path(folder, STATE, _NEWEST + ".new").unlink(missing_ok=True)
        self._last = self._clock()
        self._cost = self._last - began


def save(folder: Path, values: Mapping[str, Any]) -> Path:
    """Saves a state below an attempt's folder, beside the newest one; gives the file. Raises OSError."""
    place = folder / STATE
    place.mkdir(exist_ok=True)  # not its parents: a folder that was moved stays moved
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_take_apart(dict(values), tensors), separators=(",", ":"))
    seen: set[int] = set()
    for name, tensor in tensors.items():
        # bitsandbytes gives all parameters the same tables, and safetensors refuses tensors that share memory
        if tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    beside, newest = place / (_NEWEST + ".new"), place / _NEWEST
    save_file(tensors, str(beside), metadata={"state": text, "sha256": _digest(text, tensors)})
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    if newest.exists():
        newest.replace(place / _BEFORE)
    beside.replace(newest)
    return newest


def find(folders: Iterable[str], trial: Mapping[str, Any]) -> tuple[SavedState | None, list[str]]:
    """The newest usable state of a trial's attempts, and a sentence for each that it has tried and cannot use.

    folders: of the attempts, the newest first. trial: its `identity`.
    """
    notes = []
    for folder in folders:
        for name in (_NEWEST, _BEFORE):
            path = Path(folder, STATE, name)
            if not path.is_file():  # a pipe would block
                continue
            try:
                values = load(path)
            except DamagedState as damage:
                notes.append(f"the state {path} is damaged ({damage})")
                continue
            if values.get("trial") == trial:
                return SavedState(values, path), notes
            notes.append(f"the state {path} is another trial's")
    return None, notes


def resume_note(number: int, step: int, notes: Sequence[str]) -> str:
    """A sentence for the user about a trial that continues from `step` because the states in `notes` are unusable."""
    if not notes:
        return ""
    where = f"goes on from an older one, step {step}" if step else "begins at step 0"
    return f"trial {number} {where}: {'; '.join(notes)}"


def load(path: Path) -> dict[str, Any]:
    """Reads a state. Raises DamagedState."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        text = metadata["state"]
        if _digest(text, tensors) != metadata["sha256"]:
            raise DamagedState("its checksum is another")
        values = _put_together(json.loads(text), tensors)
    except DamagedState:
        raise
    except Exception as error:  # whatever a damaged header makes a reader do
        raise DamagedState(f"{type(error).__name__}: {error}"[:200]) from error
    if not isinstance(values, dict):
        raise DamagedState("no state")
    return values


def _take_apart(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as plain data for JSON. Its tensors [...], of any dtype, go into `tensors` by name, on the host and
    contiguous."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _take_apart(item, tensors) for key, item in value.items()}
        return {_PAIRS: [[key, _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_take_apart(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_take_apart(item, tensors) for item in value]
    return value


def _put_together(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `_take_apart`. tensors: [...] of any dtype, by name."""
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_put_together(item, tensors) for item in value[_TUPLE])
    if _PAIRS in value:
        return {key: _put_together(item, tensors) for key, item in value[_PAIRS]}
    return {key: _put_together(item, tensors) for key, item in value.items()}


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the text and the tensors, [...] of any dtype, with their names, dtypes and shapes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
