"""Training steps recorded once as CUDA graphs, and replayed.

A step of few tokens is bound by its launches: some 10,000 of them keep a core busy for 0.15 s and more over a base of
28 layers, whatever the GPU has to do. A graph is launched as one. It reads and writes fixed addresses of fixed shapes,
so a batch's rows are brought to one of a few shapes (`batches.collate`), and adapters lie where they always lie
(`stack.Stack`): trials come and go, and the graphs stay.

Two graphs a shape: the way to the last hidden states, and the way back from their gradient. What lies between is not
recorded: the head scores as many positions as have a target.

What a recording holds is memory that nothing else can use. So there is one where it leaves room (`_room`), none any
more where a batch comes that is larger than all before and would have none beside it (`_make_way`), and none where
memory gave out nevertheless (`making_way`).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from trainables.packed.batches import Batch, Shapes
from trainables.packed.layer_context import Board, Site

_PAYS = 2.5e13
"""Tokens of a step times weights, below which launches take longer than the GPU: 0.25 s of it at 400 TFLOP/s."""

_MOST = 32
"""Shapes that are kept, those that were used last."""

_MORE = 1.3
"""What a recording takes, by what the way forward leaves for the way back."""

_GENERATIONS = (9, 10)
"""Of GPUs whose `grouped_mm` reads where segments end by itself. On others it asks the host, in torch 2.11 to 2.13, and
a step that does cannot be recorded; besides, `bmm` over segments filled up to one length is faster there."""

_SPARE = 0.1
"""Share of the GPU that a recording leaves free, besides what a step has needed so far."""

Pass = Callable[[Batch], torch.Tensor]
Given = TypeVar("Given")


@dataclass(frozen=True)
class _Recorded:
    """batch: what the graphs read. hidden, gradient: [1, tokens, features], written by one and read by the other.
    kept: what they read besides, and nothing else holds."""

    batch: Batch
    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    hidden: torch.Tensor
    gradient: torch.Tensor
    kept: Any


def possible(device: torch.device) -> bool:
    """Whether steps can be recorded on a device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in _GENERATIONS


class Replays:
    """The base's pass over batches of fixed shapes, in training.

    run: the pass itself, over a batch that is shown. show: shows one. After a recording that failed there is no other.
    """

    def __init__(
        self, run: Pass, show: Callable[[Batch], None], board: Board, sites: Collection[Site], *, on: bool
    ) -> None:
        self._run, self._show, self._board, self._sites = run, show, board, sites
        self._weights = sum(site.shape.inputs * site.shape.outputs for site in sites)
        self._anchor = torch.zeros((), requires_grad=True)
        self._shapes = Shapes()
        self._left: dict[Any, int] = {}
        """Of every shape that has run once, what its way forward left for the way back. The second batch is recorded:
        that takes as long as two that are not."""
        self._refused: set[Any] = set()
        self._recorded: dict[Any, _Recorded] = {}
        self._pool: Any = None
        self._stream: Any = None
        self._held = self._largest = 0
        self._most = 0
        """Tokens of the largest batch that has run by itself, which is what memory's peak so far comes from."""
        self.on = on

    def shapes(self, tokens: int) -> Shapes | None:
        """What batches of so many tokens are brought to, where that pays."""
        return self._shapes if self.on and tokens * self._weights <= _PAYS else None

    def hidden(self, batch: Batch) -> torch.Tensor:
        """The last hidden states, [1, tokens, features], of a batch that is shown; a replay where there is one."""
        if not self.on:
            return self._run(batch)
        key = self._key(batch) if batch.fixed else None
        if key is not None and (key in self._recorded or (key in self._left and self._record(key, batch))):
            self._recorded[key] = recorded = self._recorded.pop(key)  # the last one now
            replayed: torch.Tensor = _Replay.apply(self._anchor, recorded, batch)
            return replayed
        self._make_way(batch.input_ids.numel())
        before = torch.cuda.memory_allocated()
        hidden = self._run(batch)
        if key is not None:
            self._left[key] = torch.cuda.memory_allocated() - before
        return hidden

    def making_way(self, run: Callable[[], Given]) -> Given:
        """What `run` gives; where memory gives out beside recordings, they go and it is run once more."""
        try:
            return run()
        except torch.OutOfMemoryError as error:
            if not self._recorded:
                raise
            traceback.clear_frames(error.__traceback__)
        self.forget()
        return run()

    @property
    def hold(self) -> bool:
        """Whether recordings hold memory."""
        return bool(self._recorded)

    def forget(self) -> None:
        """Drops what is recorded: the adapters that it reads are about to lie elsewhere, or memory gave out."""
        self._give_back()
        self._refused.clear()
        self._left.clear()
        self._most = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile nothing is recorded or replayed."""
        on, self.on = self.on, False
        try:
            yield
        finally:
            self.on = on

    def _give_back(self) -> None:
        if self._recorded:
            self._recorded.clear()
            torch.cuda.empty_cache()
        self._pool, self._held, self._largest = None, 0, 0

    def _key(self, batch: Batch) -> Any:
        """All that the pass depends on but the values of tensors; None where it depends on more than shapes."""
        slots = tuple(segment.slot for segment in batch.segments)
        dropouts = {slot: self._board.dropouts[slot].share for slot in slots if slot in self._board.dropouts}
        if not batch.even and next(iter(self._sites)).a.dtype != torch.bfloat16:
            return None  # a product for each of these segments, and for no others
        return (
            slots,
            tuple(tensor.shape for tensor in batch.read),
            batch.grid and batch.grid.rows,
            batch.width,
            batch.span if dropouts else None,
            tuple(dropouts.items()),
            tuple(tuple(bool(site.scales[slot]) for site in self._sites) for slot in dropouts),
            tuple(any(site.scales[slot] for slot in slots) for site in self._sites),
        )

    def _record(self, key: Any, batch: Batch) -> bool:
        """Records the passes over a batch of this shape, and runs none. False where there is no room or no way."""
        if key in self._refused:
            return False
        tokens = batch.input_ids.numel()
        # What a larger one needs does not go into the blocks of smaller ones: it takes their place
        larger = tokens > self._largest
        if not self._room(self._left[key], given_back=self._held if larger else 0):
            self._refused.add(key)
            return False
        if larger:
            self._give_back()
        while len(self._recorded) >= _MOST:
            self._left.pop(oldest := next(iter(self._recorded)))
            del self._recorded[oldest]
        before, stream = torch.cuda.memory_reserved(), torch.cuda.current_stream()
        failure, no_room = "", False
        try:
            self._recorded[key] = self._passes(batch.copy())
        except RuntimeError as error:
            traceback.clear_frames(error.__traceback__)
            failure, no_room = str(error), isinstance(error, torch.OutOfMemoryError)
        finally:
            torch.cuda.set_stream(stream)  # a recording that ends in an error does not come back to it
            torch._C._cuda_clearCublasWorkspaces()  # 67 MB of each stream that a recording has had are kept otherwise
            self._show(batch)
        if failure:
            self._mend()
            if no_room:
                self._refused.add(key)
                return False
            self.on = False
            logging.getLogger(__name__).warning("steps cannot be recorded as CUDA graphs: %s", failure)
            return False
        self._held += torch.cuda.memory_reserved() - before
        self._largest = max(self._largest, tokens)
        return True

    def _room(self, left: int, *, given_back: int) -> bool:
        """Whether a recording fits beside what a step that is not recorded has needed so far."""
        torch.cuda.empty_cache()  # torch does not do it in the middle of a recording
        needed = max(0, _MORE * left - (self._held - given_back))  # recordings share what they hold
        needed += torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        free, everything = torch.cuda.mem_get_info()
        return free + given_back >= needed + _SPARE * everything

    def _make_way(self, tokens: int) -> None:
        """Gives back what is recorded where a batch that is larger than all before has no room beside it."""
        if tokens <= self._most:
            return
        if self._recorded:
            allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
            needed = (torch.cuda.max_memory_allocated() - allocated) * tokens / self._most
            if free + torch.cuda.memory_reserved() - self._held - allocated < needed:
                self._give_back()
        self._most = tokens

    def _passes(self, batch: Batch) -> _Recorded:
        self._show(batch)
        if self._pool is None:  # what one recording has let go the next one takes, from one pool and on one stream
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        # Other threads copy and write meanwhile, which is no business of the recording
        record = partial(torch.cuda.graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        forward, backward = self._graph(), torch.cuda.CUDAGraph()
        # A weight that autocast has cast must not be taken for the next pass's
        with record(forward), _without_cache():
            hidden = self._run(batch)
        gradient = torch.zeros_like(hidden)
        with record(backward), torch.autocast("cuda", enabled=False):
            torch.autograd.backward(hidden, gradient)
        return _Recorded(batch, forward, backward, hidden.detach(), gradient, self._board.slots)

    def _graph(self) -> torch.cuda.CUDAGraph:
        """One that may draw the masks of those who have dropout."""
        graph = torch.cuda.CUDAGraph()
        for dropout in self._board.dropouts.values():
            graph.register_generator_state(dropout.stream)
        return graph

    def _mend(self) -> None:
        """After a recording that ended in an error, which leaves torch's allocator in its pool, the pool without an
        owner that would give it back, and generators waiting for a replay."""
        device = torch.cuda.current_device()
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)
        self.forget()
        with suppress(RuntimeError), torch.cuda.graph(self._graph()):
            torch.zeros(1, device="cuda")


@contextmanager
def _without_cache() -> Iterator[None]:
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


class _Replay(torch.autograd.Function):
    """One replay forward, and one on the way back."""

    @staticmethod
    def forward(ctx: Any, _anchor: torch.Tensor, recorded: _Recorded, batch: Batch) -> torch.Tensor:
        for own, new in zip(recorded.batch.read, batch.read, strict=True):
            own.copy_(new, non_blocking=True)
        recorded.forward.replay()
        ctx.recorded = recorded
        return recorded.hidden.detach()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        ctx.recorded.gradient.copy_(grad)
        ctx.recorded.backward.replay()
        return None, None, None
