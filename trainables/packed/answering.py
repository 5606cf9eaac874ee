"""Answers of several slots at once: their adapters on one base, with the base's own attention and KV cache.

Training passes have rows one after another and an attention of their own. Generating is left to transformers, whose
batches have lines of one width. Lines of one slot are next to each other, so that a slot's tokens are consecutive here
too, and the adapted layers need no other form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch

from trainables.answers import generating
from trainables.answers.measuring import Measured, Measurer
from trainables.packed.packed_model import PackedModel
from trainables.packed.packed_trial import PackedTrial


def measured(
    packed: PackedModel,
    measurer: Measurer | None,
    due: Sequence[PackedTrial],
    padding: int,
    alive: Sequence[PackedTrial | None],
) -> dict[int, Measured]:
    """By slot, the metrics of those trials that are at their end, measured together. alive: all trials of the engine,
    None for an empty slot; their heartbeats go on meanwhile."""
    ended = [trial for trial in due if trial.done]
    if measurer is None or not ended:
        return {}
    slots = sorted(trial.slot for trial in ended)
    stops = measurer.stops(packed.model)

    def generate(prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        return answers(
            packed,
            slots,
            prompts,
            stops=stops,
            padding=padding,
            most=measurer.most_tokens,
            tell=lambda done: beat(alive),
        )

    seconds = max(trial.progress.seconds for trial in ended)
    return dict(zip(slots, measurer.measure(generate, len(slots), seconds), strict=True))


def beat(trials: Sequence[PackedTrial | None]) -> None:
    """Shows that trials are alive."""
    for trial in trials:
        if trial is not None:
            trial.heartbeat.beat()


def answers(
    packed: PackedModel,
    slots: Sequence[int],
    prompts: Sequence[list[int]],
    *,
    stops: Sequence[int],
    padding: int,
    most: int,
    tell: Callable[[int], None] = lambda done: None,
) -> list[list[list[int]]]:
    """By slot, the token ids of its greedy answer to each prompt, as `generating.generate` gives them."""
    asked = [(slot, prompt) for prompt in prompts for slot in slots]
    owners = [slot for slot, _ in asked]
    with _ordinary(packed), torch.autocast(packed.device.type, torch.bfloat16, enabled=packed.autocast):
        found = generating.generate(
            packed.model, [prompt for _, prompt in asked], stops=stops, padding=padding, most=most, groups=owners,
            around=lambda batch: _lines(packed, [owners[at] for at in batch]), tell=tell,
        )  # fmt: skip
    return [found.ids[place :: len(slots)] for place in range(len(slots))]


@contextmanager
def _ordinary(packed: PackedModel) -> Iterator[None]:
    """Within it the base attends as it was loaded."""
    config = packed.model.config.get_text_config()
    replaced, training = config._attn_implementation, packed.model.training
    config._attn_implementation = packed.attention.chosen
    packed.model.eval()
    try:
        yield
    finally:
        config._attn_implementation = replaced
        packed.model.train(training)


@contextmanager
def _lines(packed: PackedModel, owners: Sequence[int]) -> Iterator[None]:
    """Within it a batch of lines passes through the base, each with the adapter of its slot. owners: the slot of each
    line, ascending."""
    groups = [(slot, len(list(lines))) for slot, lines in groupby(owners)]

    def show(module: Any, arguments: tuple[Any, ...], given: dict[str, Any]) -> None:
        ids = given["input_ids"] if given.get("input_ids") is not None else arguments[0]
        packed.context.show_lines(groups, ids.shape[1], ids.device)

    hook = packed.model.base_model.register_forward_pre_hook(show, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        packed.context.segments = ()
