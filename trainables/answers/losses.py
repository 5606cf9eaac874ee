"""Measures the loss of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch

from trainables.data.tokens import IGNORED, Tokens
from trainables.out_of_memory import is_out_of_memory

_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Most tokens of a forward pass, padding included."""


def rows_of(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    """The token ids and the labels of each row."""
    found, begin = [], 0
    for end in tokens.ends:
        found.append((list(tokens.input_ids[begin:end]), list(tokens.labels[begin:end])))
        begin = end
    return found


def targets(labels: Sequence[int]) -> int:
    """How many tokens of a row are predicted and learned: the first is predicted by none."""
    return sum(label != IGNORED for label in labels[1:])


def losses(
    model: Any,
    rows: Sequence[tuple[list[int], list[int]]],
    padding: int,
    tell: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """The negative log-likelihood of each row, in nats, summed over its targets.

    model: in evaluation mode. rows: token ids and labels. padding: the id that batches are padded with. tell: gets the
    number of rows that are done.
    """
    device = model.get_input_embeddings().weight.device
    limit = _TOKENS.get(device.type, 4096)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    found: dict[int, float] = {}
    with torch.no_grad():
        while len(found) < len(order):
            batch = _batch(rows, islice(order, len(found), None), limit)
            try:
                sums = _sums(model, [rows[at] for at in batch], padding, device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                sums = None  # outside of the handler, the traceback no longer holds the tensors
            if sums is None:
                limit = sum(len(rows[at][0]) for at in batch) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            found.update(zip(batch, sums, strict=True))
            tell(len(found))
    return [found[at] for at in range(len(rows))]


def _batch(rows: Sequence[tuple[list[int], list[int]]], order: Iterable[int], limit: int) -> list[int]:
    """The next rows of `order`, of ascending length, that go through together."""
    taken: list[int] = []
    for at in order:
        if taken and (len(taken) + 1) * len(rows[at][0]) > limit:
            break
        taken.append(at)
    return taken


def _sums(model: Any, rows: Sequence[tuple[list[int], list[int]]], padding: int, device: torch.device) -> list[float]:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for at, (own, learned) in enumerate(rows):
        ids[at, : len(own)] = torch.tensor(own)
        labels[at, : len(own)] = torch.tensor(learned)
        mask[at, : len(own)] = 1
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    wanted = labels[:, 1:].to(device)
    sums = []
    for at in range(len(rows)):  # row by row: float32 logits of a whole batch take 4 bytes times 150,000 for each token
        each = torch.nn.functional.cross_entropy(
            logits[at, :-1].float(), wanted[at], ignore_index=IGNORED, reduction="sum"
        )
        sums.append(float(each))
    return sums
