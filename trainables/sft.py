"""The SFT program: TRL's SFTTrainer over a resident base, one adapter after another.

Importing this module costs no torch. `prepare` makes the tokenized rows once a search; an instance loads the base once
a worker; `start`, `step` and `stop` bring a trial, run it an evaluation at a time, and take it away again.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.settings import PARAMETERS, REFUSED, Settings, steps, with_params
from trainables.settings.train import CHANGES_BASE
from tuner.contract import (
    Assignment,
    Budget,
    Evaluation,
    Fault,
    InputError,
    Parameter,
    Preparation,
    Reason,
    Setup,
)

if TYPE_CHECKING:
    from trainables.hf.trial import Trial
    from trainables.models.resident import Resident

CHECK_BASE = "TUNER_CHECK_BASE"
"""Environment variable: with 1, the base's weights are summed up after every trial and must not have changed."""


class SFT:
    """Supervised fine-tuning of a LoRA or QLoRA adapter."""

    Settings: ClassVar[Any] = Settings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = PARAMETERS
    REFUSED: ClassVar[Mapping[str, str]] = REFUSED

    with_params = staticmethod(with_params)

    @classmethod
    def budget(cls, settings: Any) -> Budget:
        """A trial's length as the recipe has it."""
        train = _validated(settings).train
        return Budget(steps=train.max_steps, epochs=train.num_train_epochs)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        """Reads, checks and tokenizes the rows, once for all trials."""
        from trainables.data.preparing import prepare
        from trainables.hf import quiet

        quiet.before_imports()
        return prepare(_validated(settings), Path(cache))

    @classmethod
    def merge(cls, settings: Mapping[str, Any], adapter_folder: str | Path, to: str | Path) -> None:
        """Merges an adapter into its base and saves a model folder with its tokenizer."""
        from trainables.hf import quiet

        quiet.before_imports()
        from trainables.models.merging import merge

        quiet.after_imports()
        merge(_validated(settings), Path(adapter_folder), Path(to))

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        from trainables.hf import quiet

        quiet.before_imports()
        from trainables.data import store, tokenizers
        from trainables.hf import trial  # noqa: F401  the heavy imports, paid once a worker

        quiet.after_imports()
        self._settings = _validated(settings)
        self._preparation = preparation
        self._tokenizer, _ = tokenizers.load(self._settings.model, self._settings.data)
        self._train = store.open_set(preparation, "train")
        self._validation = store.open_set(preparation, "validation")
        self._trial: Trial | None = None
        self._resident: Resident | None = None
        self._checksum = ""
        self._base_changed = False
        # What is there now stays: the collector need not walk the libraries' 500,000 objects after every trial.
        # Before the base comes, which must remain collectable.
        gc.collect()
        gc.freeze()
        self._load_base()

    def start(self, assignment: Assignment) -> Setup:
        """Brings a trial: adapter, optimizer, schedule. Nothing is trained yet."""
        from trainables.hf.trial import Trial, clock

        began = clock()
        if self._trial is not None:
            self.stop()
        if self._resident is None:
            self._load_base()
        assert self._resident is not None
        settings = with_params(self._settings, assignment.params)
        self._base_changed = settings.train.init_lora_weights in CHANGES_BASE
        with _faults():
            self._trial = Trial(
                settings, assignment, self._resident, self._tokenizer, self._train, self._validation, began
            )
        return self._setup(settings, self._trial)

    def step(self) -> Evaluation:
        """Trains to the next evaluation point and measures."""
        if self._trial is None:
            raise RuntimeError("step() before start()")
        with _faults():
            return self._trial.turns.next()

    def stop(self) -> None:
        """Ends the trial, wherever it is, and leaves the base as it was first loaded. A second call does nothing."""
        from trainables.hf.trial import collect

        trial, self._trial = self._trial, None
        if trial is not None:
            trial.close()
            trial.take_away()
            del trial
        if self._resident is not None:
            self._resident.restore()
        if self._base_changed:
            self._resident = None  # loaded again by the next start, not now: there may be none
            self._base_changed = False
        collect()
        self._check_base()

    def _load_base(self) -> None:
        from trainables.models import base
        from trainables.models.resident import Resident

        with _faults():
            model = base.load(self._settings.model)
        known, highest = model.get_input_embeddings().num_embeddings, self._preparation.facts.get("max_token_id", 0)
        if highest >= known:
            raise InputError(
                f"the rows contain token id {highest}, the model has {known} tokens",
                where=self._settings.model.tokenizer,
                expected="the tokenizer the model was trained with",
            )
        self._resident = Resident(model)
        if os.environ.get(CHECK_BASE) == "1":
            self._checksum = self._resident.checksum()

    def _check_base(self) -> None:
        if self._checksum and self._resident is not None and self._resident.checksum() != self._checksum:
            raise Fault(Reason.ERROR, "a trial changed the weights of the base it shares with others")

    def _setup(self, settings: Settings, trial: Trial) -> Setup:
        import torch

        from trainables.models import base

        args, count = trial.trainer.args, trial.count
        gpu = torch.cuda.is_available()
        return Setup(
            max_steps=trial.max_steps,
            trainable_parameters=count.trainable,
            total_parameters=count.total,
            details={
                "share": str(count),
                "micro_batch": args.per_device_train_batch_size,
                "accumulation": args.gradient_accumulation_steps,
                "steps_per_epoch": steps.steps_per_epoch(
                    len(self._train), steps.Batch(args.per_device_train_batch_size, args.gradient_accumulation_steps)
                ),
                "warmup_steps": args.warmup_steps,
                "lora_alpha": trial.config.lora_alpha,
                "adapted_modules": trial.adapted_modules(),
                "dtype": str(base.dtype(settings.model)).removeprefix("torch."),
                "quantization": settings.model.quantization.kind,
                "memory_before": trial.memory_before,
                "device": torch.cuda.get_device_name() if gpu else "cpu",
            },
        )


def _validated(settings: Any) -> Settings:
    return settings if isinstance(settings, Settings) else Settings.model_validate(dict(settings))


@contextmanager
def _faults() -> Iterator[None]:
    """Out of memory, as the driver knows it. The frames that hold the tensors are let go at once."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = str(error).split(". ")[0] or "out of memory"
        traceback.clear_frames(error.__traceback__)
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        message = "the host has too little memory"
        traceback.clear_frames(error.__traceback__)
    else:
        return
    raise Fault(
        Reason.OUT_OF_MEMORY,
        message,
        "lower train.per_device_train_batch_size or data.max_length, or set train.gradient_checkpointing",
    )
