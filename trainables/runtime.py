"""What every process that trains begins with, solo or packed: settings, rows, base, and the facts of a trial's set-up.

Importing this module costs no torch.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.images import vision
from trainables.out_of_memory import out_of_memory_faults
from trainables.settings import Settings, steps
from tuner.contract import ALONE, Fault, Group, InputError, Preparation, Reason, Setup, Unpackable

if TYPE_CHECKING:
    from trainables.answers.measuring import Measurer
    from trainables.models.counting import Count

_PRECISION = {"dtype": "model.dtype", "compute_dtype": "model.quantization.compute_dtype"}
"""By name in the details of a set-up: the setting whose `auto` chooses it by the device."""


@dataclass(frozen=True)
class Inputs:
    """What all trials of a worker read."""

    tokenizer: Any
    """The tokenizer with a pad token and the chat template of the settings."""
    train: Any
    """The tokenized training rows, a memory-mapped `datasets.Dataset` of input_ids and labels."""
    validation: Any
    """The tokenized validation rows, of the same kind."""
    processor: Any = None
    """The base's processor, for rows with images: `train` and `validation` then have these, in TRL's format."""
    mixed: bool = False
    """Whether some rows have images and some have none."""
    collator: Any = None
    """What makes batches of rows with images; None: SFTTrainer's collator of text."""


def validated(settings: Any) -> Settings:
    """Gives `Settings` as they are, and validates a mapping. Raises pydantic's ValidationError."""
    return settings if isinstance(settings, Settings) else Settings.model_validate(dict(settings))


def open_inputs(settings: Settings, preparation: Preparation) -> Inputs:
    """Opens the tokenizer and both sets. Raises InputError.

    Downloads base and tokenizer if they are on the hub. From then on this process uses the cache alone, unless they
    have code in another repository, which is downloaded when it is first imported.
    """
    from trainables.data import store, tokenizers
    from trainables.hub import client, sources

    folders = [client.fetch(source) for source in sources.bases(settings.model)]
    if folders and not any(client.names_other_code(folder) for folder in folders):
        client.go_offline()
    if vision.are_in(preparation.facts):
        from trainables.images import opening

        processor, collator = opening.open_collator(settings, preparation)
        train, validation = (opening.open_rows(preparation, name) for name in ("train", "validation"))
        mixed = preparation.facts[vision.FACT]["rows_without"] > 0
        return Inputs(processor.tokenizer, train, validation, processor, mixed, collator)
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    return Inputs(tokenizer, store.open_set(preparation, "train"), store.open_set(preparation, "validation"))


def measurer(settings: Settings, preparation: Preparation, inputs: Inputs) -> Measurer | None:
    """What trials are measured by at their end, beside the loss; None where the settings name no metrics."""
    if not settings.metrics.names:
        return None
    from trainables.answers.measuring import Measurer

    return Measurer(settings, preparation, inputs.tokenizer)


def load_base(settings: Settings, preparation: Preparation, group: Group = ALONE) -> Any:
    """Loads the base that the rows were prepared for. group: the processes that train on it.

    Raises Fault where there is no GPU to train on, too little memory, or another base than the search began with, and
    InputError where the rows have token ids or positions that the base does not have.
    """
    from trainables import fingerprints
    from trainables.models import base, gpu, passage, positions

    gpu.require()
    fingerprints.require_same_base(settings.model, preparation.facts)
    with out_of_memory_faults():
        model = base.load(settings.model, group)
    known, highest = model.get_input_embeddings().num_embeddings, preparation.facts.get("max_token_id", 0)
    if highest >= known:
        raise InputError(
            f"the rows contain token id {highest}, the model has {known} tokens",
            where=settings.model.tokenizer,
            expected="the tokenizer the model was trained with",
        )
    positions.check(model, preparation)
    passage.learning(model)  # before an engine changes its attention
    return model


def setup(
    settings: Settings,
    *,
    max_steps: int,
    rows: int,
    count: Count,
    lora_alpha: float,
    adapted_modules: int,
    memory_before: int | None,
    parts: str,
    base_class: str,
    resumed_step: int = 0,
    note: str = "",
    processes: int = 1,
    images: bool = False,
) -> Setup:
    """What the driver is told of a trial before its first step.

    rows: of the training set. memory_before: bytes of GPU memory in use before its set-up. parts: which
    parts of the base have an adapter, in words. base_class: the class that the base is loaded as. processes: that train
    the trial. images: whether rows have some.
    """
    from trainables.models import base

    train, quantization = settings.train, settings.model.quantization
    split = steps.split_of(train, processes)
    computes = base.compute_dtype(quantization) if quantization.kind == "nf4" else None
    of_images = {"vision": settings.model.vision, "max_pixels": settings.data.max_pixels} if images else {}
    return Setup(
        max_steps=max_steps,
        trainable_parameters=count.trainable,
        total_parameters=count.total,
        details={
            "micro_batch": split.micro,
            "accumulation": split.accumulation,
            "processes": processes,
            "steps_per_epoch": steps.steps_per_epoch(rows, steps.split_of(train)),
            "warmup_steps": steps.warmup_steps(train.warmup_ratio, max_steps),
            "lora_alpha": lora_alpha,
            "adapted_modules": adapted_modules,
            "base_class": base_class,
            "dtype": str(base.dtype(settings.model)).removeprefix("torch."),
            "quantization": quantization.kind,
            "compute_dtype": computes and str(computes).removeprefix("torch."),
            "memory_before": memory_before,
            "gradient_checkpointing": train.gradient_checkpointing,
            "device": device_name(),
            "node": platform.node(),
            **of_images,
        },
        resumed_step=resumed_step,
        note=note,
        parts=parts,
    )


def unlike(first: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """A note where the set-up of a trial, `own`, has another precision than that of the first; "" where it has not."""
    for name, setting in _PRECISION.items():
        before, now = first.get(name), own.get(name)
        if before and now and before != now:
            return (f"some trials compute in {before}, some in {now} ({setting} follows the device): losses differ by "
                    f"that too; a new search with {setting} set has one for all")  # fmt: skip
    return ""


def device_name() -> str:
    """The name of the device that trains here; devices of one name have the same memory."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@contextmanager
def target_faults(settings: Settings, recipe: Settings) -> Iterator[None]:
    """Within it, a fault of target modules that the space drew, which the recipe does not have, ends only the trial and
    not the search: it is raised with another reason. settings: of the trial."""
    try:
        yield
    except Fault as fault:
        chosen = settings.train.target_modules != recipe.train.target_modules
        if fault.reason is not Reason.CONFIG or isinstance(fault, Unpackable) or not chosen:
            raise
        raise Fault(Reason.ERROR, fault.message, fault.remedy) from fault
