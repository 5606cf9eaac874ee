"""A program that does not train: its loss is a formula of its parameters.

A search on real Ray then takes seconds. When told to, its trials misbehave in every way in which a real trial can.

The loss after a share s of the steps is `floor + (8 - floor) * 0.02 ** s`, where floor grows with the distance of
log10(learning_rate) from -2. So there is one optimum, and curves do not cross.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tests.programs.misbehaving import ENDS_AS, misbehave
from tuner.contract import (
    ALIVE,
    STATE,
    Assignment,
    Budget,
    Evaluation,
    Fault,
    Fit,
    InputError,
    Parameter,
    Preparation,
    Reason,
    Setup,
)

Behaviour = Literal[
    "fine", "nan", "inf", "none", "missing", "raise", "exit", "frozen", "data", "out_of_memory", "flat", "nonsense",
    "exit_once", "kill_once", "raise_in_setup", "sys_exit", "segfault", "fork", "unpicklable", "hang", "hang_once",
    "kill_at_once", "fork_and_die", "huge", "text", "too_large", "slow_but_alive", "minus_inf", "no_report", "no_keys",
    "huge_loss", "unpicklable_report", "holds_a_lock", "raises", "exits", "exits_in_a_thread", "interrupts",
    "host_memory", "gpu_memory", "says_what_fits", "no_fault", "input_error", "full_disk", "import_error", "unsayable",
    "sticks", "not_confirmed", "worsens",
]  # fmt: skip


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Train(Strict):
    max_steps: int = Field(27, ge=1)
    num_train_epochs: float | None = None
    """Wins over max_steps."""
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    eval_steps: float = 0.1
    behaviour: Behaviour = "fine"
    misbehaving: list[int] = []
    each: dict[str, Behaviour] = {}
    """Behaviour by number of the trial, above the two others."""
    killed: float = 0.0
    """Share of the trials, drawn by number, whose first attempt is killed before its first report."""
    pace: float = 0.0
    """Seconds between evaluations."""
    resumes: bool = True
    """Keeps a state and goes on from it."""
    fits: int = 4
    """With too_large: the micro-batch that fits; below 1 only with gradient checkpointing, below 0 nothing does."""


class ToySettings(Strict):
    train: Train = Train()
    unprepared: str = ""
    in_pack: str = ""
    """Of what misbehaving.py knows, what a packed toy's `pack` does."""


class Toy:
    """See the module."""

    Settings = ToySettings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "learning_rate": Parameter("learning_rate", "train.learning_rate", "float", low=1e-6, high=1.0, label="lr"),
        "batch_size": Parameter("batch_size", "train.batch_size", "int", low=1, high=64, label="batch"),
    }
    REFUSED: ClassVar[Mapping[str, str]] = {"max_length": "it changes what the loss means"}

    @classmethod
    def budget(cls, settings: ToySettings) -> Budget:
        epochs = settings.train.num_train_epochs
        return Budget(steps=None if epochs else settings.train.max_steps, epochs=epochs)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        match settings["unprepared"]:
            case "input":
                raise InputError("the toy data is empty", where="toy.jsonl", expected="rows")
            case "fault":
                raise Fault(Reason.DATA, "every label is masked", "look at the template")
            case "die":
                os._exit(7)
            case "nothing":
                return None  # type: ignore[return-value]
            case what:
                misbehave(what)
        return Preparation(folder=str(cache), tokens=100_000, facts={"rows": 1000}, notes=("toy data",))

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        self._settings = ToySettings.model_validate(settings).train
        self._started_trials = 0

    def start(self, assignment: Assignment) -> Setup:
        train = self._settings.model_copy(update=dict(assignment.params))
        self._assignment, self._train = assignment, train
        self._behaviour = train.behaviour if assignment.number in train.misbehaving else "fine"
        if random.Random(assignment.number).random() < train.killed:
            self._behaviour = "kill_at_once"
        self._behaviour = train.each.get(str(assignment.number), self._behaviour)
        epochs = train.num_train_epochs
        self._max_steps = max(1, round(1000 * epochs / train.batch_size)) if epochs else train.max_steps
        self._left = list(assignment.evaluation_steps(self._max_steps))
        self._best, self._began = math.inf, time.monotonic()
        self._again: Evaluation | None = None
        self._started_trials += 1
        first = assignment.attempt == 1
        match self._behaviour:
            case "frozen":
                raise Fault(
                    Reason.FROZEN, "0 of 1,000 parameters are trainable", "give SFTTrainer base and peft_config="
                )
            case "data":
                raise Fault(Reason.DATA, "no label tokens", "look at the template")
            case "raise_in_setup":
                raise ValueError("the toy cannot be set up")
            case "exit_once" | "kill_once" | "kill_at_once" | "hang_once" if not first:
                self._behaviour = "fine"
            case "kill_at_once":
                os.kill(os.getpid(), signal.SIGKILL)
        resumed = self._go_on() if train.resumes else 0
        fit = assignment.fits.get("toy", Fit(8)).within(Fit(8))
        self._fit = fit
        details = {"pid": os.getpid(), "device": "toy", "micro_batch": fit.micro_batch}
        if self._behaviour == "unpicklable":
            details["lock"] = threading.Lock()
        self._lock = threading.Lock() if self._behaviour == "holds_a_lock" else None
        return Setup(self._max_steps, 10, 1000, details, resumed)

    def step(self) -> Evaluation:
        time.sleep(self._train.pace)
        if self._again is not None:
            again, self._again = self._again, None
            return again
        step = self._left.pop(0)
        loss: float | None = self.loss(step)
        if step > self._max_steps * 0.2:
            match self._behaviour:
                case "nan":
                    loss = math.nan
                case "inf":
                    loss = math.inf
                case "minus_inf":
                    loss = -math.inf
                case "none" | "missing":
                    loss = None
                case "nonsense":
                    return "nonsense"  # type: ignore[return-value]
                case "raise":
                    raise ValueError("the toy broke")
                case "exit" | "exit_once":
                    os._exit(7)
                case "kill_once":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "segfault":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "sys_exit":
                    sys.exit(3)
                case "hang" | "hang_once":
                    time.sleep(3600)
                case "slow_but_alive":
                    for _ in range(16):
                        time.sleep(0.25)
                        self._state().joinpath(ALIVE).touch()
                    self._behaviour = "fine"
                case "fork":
                    subprocess.Popen(["sleep", "3600"])
                    self._behaviour = "fine"
                case "fork_and_die":
                    subprocess.Popen(["sleep", "3600"])
                    if self._assignment.attempt == 1:
                        time.sleep(1)
                        os.kill(os.getpid(), signal.SIGKILL)
                    self._behaviour = "fine"
                case "huge":
                    return Evaluation(step, self._max_steps, loss, adapter="x" * 10_000_000)
                case "text":
                    return Evaluation(step, self._max_steps, "low")  # type: ignore[arg-type]
                case "huge_loss":
                    return Evaluation(step, self._max_steps, "x" * 10_000_000)  # type: ignore[arg-type]
                case "no_keys":
                    return {"step": step}  # type: ignore[return-value]
                case "no_report":
                    return None  # type: ignore[return-value]
                case "unpicklable_report":
                    return Evaluation(step, self._max_steps, loss, adapter=threading.Lock())  # type: ignore[arg-type]
                case "too_large":
                    self._allocate()
                case what if what in ENDS_AS:
                    misbehave(what)
                case "out_of_memory":
                    raise Fault(Reason.OUT_OF_MEMORY, "micro-batch 1 does not fit", "a smaller model")
        adapter = None
        if loss is not None and loss < self._best:
            self._best = loss
            adapter = self._save(loss)
        seconds = time.monotonic() - self._began
        evaluation = Evaluation(
            step, self._max_steps, loss, step * 100, train_loss=loss, seconds=seconds, adapter=adapter
        )
        if self._train.resumes and loss is not None and math.isfinite(loss):
            beside = self._state() / "state.new"
            beside.write_text(json.dumps({"best": self._best, "evaluation": evaluation.to_dict()}))
            beside.replace(self._state() / "state.json")
        return evaluation

    def _state(self) -> Path:
        folder = Path(self._assignment.folder) / STATE
        folder.mkdir(exist_ok=True)
        return folder

    def _go_on(self) -> int:
        """Continues from the newest state of an earlier attempt; gives its step, or 0 where there is none."""
        resume = self._assignment.resume
        for folder in resume.folders if resume else ():
            state = Path(folder, STATE, "state.json")
            if not state.exists():
                continue
            found = json.loads(state.read_text())
            evaluation = Evaluation(**found["evaluation"])
            self._best = found["best"]
            self._left = [step for step in self._left if step > evaluation.step]
            if resume and evaluation.step > resume.step:
                self._again = evaluation
            return evaluation.step
        return 0

    def _allocate(self) -> None:
        """Raises Fault, out of memory, for more than `fits` rows a pass. With 0, one row with checkpointing has room;
        below 0, nothing has."""
        if self._fit.micro_batch <= self._train.fits or (self._train.fits == 0 and self._fit.gradient_checkpointing):
            return
        if self._fit.micro_batch > 1:
            smaller: Fit | None = Fit(self._fit.micro_batch // 2)
        else:
            smaller = None if self._fit.gradient_checkpointing else Fit(1, True)
        raise Fault(Reason.OUT_OF_MEMORY, f"{self._fit} does not fit", "a smaller model", "toy", smaller)

    def stop(self) -> None:
        self._left = []

    @property
    def keeps_its_slot(self) -> bool:
        """In a packed search: whether the engine cannot remove this trial from its slot."""
        return self._behaviour == "sticks"

    def confirmed(self) -> None:
        """In a packed search: lets the trial go on. Raises LookupError if it misbehaves so."""
        if self._behaviour == "not_confirmed":
            raise LookupError("the slot is empty")

    def loss(self, step: int) -> float:
        distance = abs(math.log10(self._train.learning_rate) + 2)
        floor = 2 + distance
        if self._behaviour == "flat":
            return 2.5
        if self._behaviour == "worsens" and step > self._max_steps * 0.2:
            return 7.9
        return floor + (8 - floor) * 0.02 ** (step / self._max_steps)

    def _save(self, loss: float) -> str:
        folder = Path(self._assignment.folder) / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter.json").write_text(json.dumps({"loss": loss, **self._assignment.params}))
        return str(folder)
