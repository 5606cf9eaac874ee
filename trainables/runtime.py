"""What every way of training needs from the worker: settings, rows, base, what is told of a trial, what a fault is.

Importing this module costs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.out_of_memory import out_of_memory_faults
from trainables.settings import Settings, steps
from tuner.contract import ALONE, Fault, Group, InputError, Preparation, Reason, Setup, Unpackable

if TYPE_CHECKING:
    from trainables.models.counting import Count


@dataclass(frozen=True)
class Inputs:
    """What all trials of a worker read: the tokenizer and the tokenized rows, memory-mapped."""

    tokenizer: Any
    train: Any
    validation: Any


def validated(settings: Any) -> Settings:
    """The settings as typed ones, whichever way they come."""
    return settings if isinstance(settings, Settings) else Settings.model_validate(dict(settings))


def open_inputs(settings: Settings, preparation: Preparation) -> Inputs:
    """The tokenizer and both sets. What comes from the hub is on this machine from here on."""
    from trainables.data import store, tokenizers
    from trainables.hub import client, sources

    folders = [client.fetch(source) for source in sources.bases(settings.model)]
    if folders and not any(client.names_other_code(folder) for folder in folders):
        client.go_offline()
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    return Inputs(tokenizer, store.open_set(preparation, "train"), store.open_set(preparation, "validation"))


def load_base(settings: Settings, preparation: Preparation, group: Group = ALONE) -> Any:
    """The base that was prepared with, which must know every token id of the rows."""
    from trainables import fingerprints
    from trainables.models import base, gpu, positions

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
    resumed_step: int = 0,
    note: str = "",
    processes: int = 1,
) -> Setup:
    """What the driver is told of a trial before its first step."""
    from trainables.models import base

    train, quantization = settings.train, settings.model.quantization
    shape = steps.share(train, processes)
    computes = base.compute_dtype(quantization) if quantization.kind == "nf4" else None
    return Setup(
        max_steps=max_steps,
        trainable_parameters=count.trainable,
        total_parameters=count.total,
        details={
            "micro_batch": shape.micro,
            "accumulation": shape.accumulation,
            "processes": processes,
            "steps_per_epoch": steps.steps_per_epoch(rows, steps.share(train)),
            "warmup_steps": steps.warmup_steps(train.warmup_ratio, max_steps),
            "lora_alpha": lora_alpha,
            "adapted_modules": adapted_modules,
            "dtype": str(base.dtype(settings.model)).removeprefix("torch."),
            "quantization": quantization.kind,
            "compute_dtype": computes and str(computes).removeprefix("torch."),
            "memory_before": memory_before,
            "gradient_checkpointing": train.gradient_checkpointing,
            "device": device(),
        },
        resumed_step=resumed_step,
        note=note,
    )


def device() -> str:
    """The name of what trains here; devices of one name have one memory."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@contextmanager
def drawn(settings: Settings, recipe: Settings) -> Iterator[None]:
    """A choice of modules that the base has not, and that this trial alone drew, ends this trial and not the search."""
    try:
        yield
    except Fault as fault:
        chosen = settings.train.target_modules != recipe.train.target_modules
        if fault.reason is not Reason.CONFIG or isinstance(fault, Unpackable) or not chosen:
            raise
        raise Fault(Reason.ERROR, fault.message, fault.remedy) from fault
