"""Generates greedy answers, many prompts at a time.

`generate` of transformers does it, with the KV cache of the base's family. A batch is padded on the left; the attention
mask hides the padding, and positions begin behind it, so that a prompt gets the answer that it gets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from trainables.models import positions
from trainables.out_of_memory import is_out_of_memory
from tuner.contract import InputError

_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Most tokens of a batch, prompts and answers, padding included: the KV cache of 65,536 tokens of a base of 1.5B
parameters (28 layers, 2 heads of keys) takes 1.9 GB."""
_ROWS = 128
"""Most rows of a batch."""


@dataclass(frozen=True)
class Answers:
    """What a model answers to prompts."""

    ids: list[list[int]]
    """The token ids of each answer, without the one that ended it."""
    cut: int
    """Answers that reached the limit of new tokens."""
    tokens: int
    """Tokens that were generated, of all answers together, with those that ended them."""


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    *,
    stops: Sequence[int],
    padding: int,
    most: int,
    rows: int = _ROWS,
    groups: Sequence[int] | None = None,
    around: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda batch: nullcontext(),
    tell: Callable[[int], None] = lambda done: None,
) -> Answers:
    """The greedy answer to each prompt, of token ids.

    model: a base, with or without an adapter, in evaluation mode. stops: ids that end an answer. padding: the id that
    batches are padded with. most: new tokens of an answer, at most. rows: of a batch, at most; fewer are taken where
    memory runs out. groups: a number of each prompt; in a batch, prompts of one number are next to each other, in
    ascending order. around: gives the context of a batch, from the indices of its prompts, line by line. tell: gets
    the number of prompts that are answered, at every token.

    Raises InputError where a prompt and its answer are longer than the base's table of positions.
    """
    if not prompts:
        return Answers([], 0, 0)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    table, longest = positions.table_of(base), max(map(len, prompts))
    if table is not None and longest + most > table:
        raise InputError(f"the longest prompt has {longest} tokens and an answer up to {most}, and the base has "
                         f"{table} positions", where="--max-new-tokens", expected=f"at most {table} together",
                         remedy=f"--max-new-tokens {max(1, table - longest)}")  # fmt: skip
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    found: dict[int, list[int]] = {}
    size = rows
    with _greedily(model, base, stops, padding, most) as config, torch.no_grad():
        while len(found) < len(order):
            batch = _batch(order[len(found) :], prompts, most, size, base.device.type)
            if groups is not None:
                batch.sort(key=lambda at: (groups[at], at))
            try:
                with around(batch):
                    answers = _answer(model, [prompts[at] for at in batch], padding, config, partial(tell, len(found)))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                answers = None  # outside of the handler, the traceback no longer holds the tensors
            if answers is None:
                size = max(1, len(batch) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            found.update(zip(batch, answers, strict=True))
            tell(len(found))
    ended = [_until(found[at], stops) for at in range(len(prompts))]
    cut = sum(len(ids) == most and len(found[at]) == most for at, ids in enumerate(ended))
    return Answers(ended, cut, sum(min(len(ids) + 1, most) for ids in ended))


def _batch(order: Sequence[int], prompts: Sequence[list[int]], most: int, rows: int, device: str) -> list[int]:
    """The next prompts of `order`, of ascending length, that go through together."""
    limit, taken = _TOKENS.get(device, 8192), 0
    for at in order[:rows]:
        if taken and (taken + 1) * (len(prompts[at]) + most) > limit:
            break
        taken += 1
    return list(order[:taken])


def _answer(
    model: Any, prompts: Sequence[list[int]], padding: int, config: Any, alive: Callable[[], None]
) -> list[list[int]]:
    """What is generated behind each prompt, with the ids behind its end. alive: called for every token."""
    width = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    ids = torch.full((len(prompts), width), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, prompt in enumerate(prompts):
        ids[at, width - len(prompt) :] = torch.tensor(prompt)
        mask[at, width - len(prompt) :] = 1

    def goes_on(found: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        alive()
        return torch.zeros(len(found), dtype=torch.bool, device=found.device)

    given = model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config, stopping_criteria=[goes_on]
    )
    return [list(map(int, row)) for row in given[:, width:].cpu()]


def _until(ids: list[int], stops: Sequence[int]) -> list[int]:
    """The ids before the first stop."""
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


@contextmanager
def _greedily(model: Any, base: Any, stops: Sequence[int], padding: int, most: int) -> Iterator[Any]:
    """Within it, the model has a generation config that samples nothing and punishes nothing. transformers takes what
    the given config leaves open from the model's own: a penalty for repetition, a temperature."""
    config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=list(stops) or None, pad_token_id=padding,
        use_cache=True,
    )  # fmt: skip
    around: list[Any] = [model, base, getattr(model, "base_model", None)]
    holders = [one for one in around if hasattr(one, "generation_config")]
    before = [(one, one.generation_config) for one in holders]
    caching = base.config.use_cache if hasattr(base.config, "use_cache") else None
    try:
        for one in holders:
            one.generation_config = config
        yield config
    finally:
        for one, earlier in before:
            one.generation_config = earlier
        if caching is not None:
            base.config.use_cache = caching
