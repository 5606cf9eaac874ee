"""Captures training passes as CUDA graphs, one for each shape of a batch, and replays them.

A step of few tokens is limited by its kernel launches: some 10,000 of them keep a core busy for at least 0.15 s with a
base of 28 layers, whatever the GPU has to do. A graph is one launch. It reads and writes fixed addresses of fixed
shapes, so batches are padded to one of a few shapes (`batches.collate`), and adapters have fixed addresses
(`stack.Stack`): trials join and leave, and the graphs stay.

A shape has two graphs: the forward to the last hidden states, and the backward from their gradient. The head between
them is not captured: it scores the positions that have a target, whose number differs from batch to batch.

A graph holds memory that nothing else can use. So a shape is captured only where enough stays free (`_has_room`). All
graphs are dropped before a batch that is larger than all before it and would not fit into memory beside them
(`_free_for`), and when memory runs out nevertheless (`retry_without_graphs`).
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

from trainables.packed.batches import Batch, ShapeBuckets
from trainables.packed.layer_context import AdaptedLinear, BatchContext

_PAYS = 2.5e13
"""Tokens of a pass times weights of the adapted layers, up to which launching the kernels takes longer than running
them: 4 operations for each product are 0.25 s at 400 TFLOP/s."""

_MOST = 32
"""Shapes whose graphs are kept: those that were used last."""

_MORE = 1.3
"""A graph takes this many times the bytes of activations that its forward saves for the backward."""

_GENERATIONS = (9, 10)
"""Major compute capabilities whose `grouped_mm` reads the ends of segments on the GPU. On others, in torch 2.11 to
2.13, it asks the host, and such a step cannot be captured; besides, `bmm` over segments padded to one length is faster
there."""

_SPARE = 0.1
"""Share of the GPU's memory that a graph leaves free, besides what a step has needed so far."""

Pass = Callable[[Batch], torch.Tensor]
"""From a batch to the last hidden states, [1, tokens, features] in the base's dtype."""
Given = TypeVar("Given")


@dataclass(frozen=True)
class _GraphPair:
    """The two graphs of one shape, with the tensors at the addresses that they read and write."""

    batch: Batch
    """Its `layer_inputs` are what the graphs read."""
    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    hidden: torch.Tensor
    """[1, tokens, features] in the base's dtype: written by `forward`."""
    gradient: torch.Tensor
    """The same shape and dtype: the gradient of `hidden`, read by `backward`."""
    slots: Any
    """`BatchContext.slots` as it was captured: the graphs read it, and nothing else keeps it alive."""


def supported(device: torch.device) -> bool:
    """Whether steps can be captured on a device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in _GENERATIONS


class CudaGraphs:
    """The base's training pass, captured for batches of recurring shapes."""

    def __init__(
        self,
        run: Pass,
        show: Callable[[Batch], None],
        context: BatchContext,
        layers: Collection[AdaptedLinear],
        *,
        enabled: bool,
    ) -> None:
        """run: the pass over a batch. show: makes a batch the one that attention and adapters read, before its pass.
        context, layers: what the adapted layers read, and those layers. enabled: whether to capture at all."""
        self._run, self._show, self._context, self._layers = run, show, context, layers
        self._weights = sum(layer.shape.inputs * layer.shape.outputs for layer in layers)
        """Weights of the adapted layers."""
        self._anchor = torch.zeros((), requires_grad=True)
        self._buckets = ShapeBuckets()
        self._saved_bytes: dict[Any, int] = {}
        """By shape, for those that have run once: bytes of activations that the forward saves. The second batch of a
        shape is captured, which takes as long as two batches without a graph."""
        self._refused: set[Any] = set()
        """Shapes for which memory lacked."""
        self.captured: dict[Any, _GraphPair] = {}
        """The graphs by shape, in the order of their last use."""
        self._pool: Any = None
        self._stream: Any = None
        self._held_bytes = 0
        """Bytes that all graphs hold together."""
        self._largest = 0
        """Tokens of the largest batch that was captured."""
        self._largest_eager = 0
        """Tokens of the largest batch that ran without a graph: the peak of memory so far comes from it."""
        self.enabled = enabled
        """Whether steps are captured. False after a capture has failed for another reason than memory."""

    def buckets(self, tokens: int) -> ShapeBuckets | None:
        """The shapes that a batch of `tokens` tokens is padded to; None where graphs would not make its pass faster."""
        return self._buckets if self.enabled and tokens * self._weights <= _PAYS else None

    def hidden(self, batch: Batch) -> torch.Tensor:
        """The last hidden states, [1, tokens, features] in the base's dtype, by a graph if there is one for this shape.

        The batch must be shown.
        """
        if not self.enabled:
            return self._run(batch)
        key = self._key(batch) if batch.bucketed else None
        if key is not None and (key in self.captured or (key in self._saved_bytes and self._capture(key, batch))):
            self.captured[key] = captured = self.captured.pop(key)  # moved to the end: the last used
            replayed: torch.Tensor = Replay.apply(self._anchor, captured, batch)
            return replayed
        self._free_for(batch.input_ids.numel())
        before = torch.cuda.memory_allocated()
        hidden = self._run(batch)
        if key is not None:
            self._saved_bytes[key] = torch.cuda.memory_allocated() - before
        return hidden

    def retry_without_graphs(self, run: Callable[[], Given]) -> Given:
        """Calls `run` and gives its result. If memory runs out while there are graphs, drops them and calls again."""
        try:
            return run()
        except torch.OutOfMemoryError as error:
            if not self.captured:
                raise
            traceback.clear_frames(error.__traceback__)
        self.clear()
        return run()

    @property
    def holds_memory(self) -> bool:
        """Whether graphs hold memory."""
        return bool(self.captured)

    def clear(self) -> None:
        """Drops all graphs, because the adapters that they read get other addresses, or because memory ran out."""
        self._release()
        self._refused.clear()
        self._saved_bytes.clear()
        self._largest_eager = 0

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it nothing is captured or replayed."""
        enabled, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = enabled

    def _release(self) -> None:
        if self.captured:
            self.captured.clear()
            torch.cuda.empty_cache()
        self._pool, self._held_bytes, self._largest = None, 0, 0

    def _key(self, batch: Batch) -> Any:
        """All that a captured pass fixes but values of tensors; None for a pass that fixes segments' lengths too."""
        slots = tuple(segment.slot for segment in batch.segments)
        dropouts = {slot: self._context.dropouts[slot].share for slot in slots if slot in self._context.dropouts}
        if not batch.uniform and next(iter(self._layers)).a.dtype != torch.bfloat16:
            return None  # form `each`: one product for each segment at its own length
        return (
            slots,
            tuple(tensor.shape for tensor in batch.layer_inputs),
            batch.grid and batch.grid.rows,
            batch.width,
            batch.padded_len if dropouts else None,
            tuple(dropouts.items()),
            tuple(tuple(bool(layer.scales[slot]) for layer in self._layers) for slot in dropouts),
            tuple(any(layer.scales[slot] for slot in slots) for layer in self._layers),
        )

    def _capture(self, key: Any, batch: Batch) -> bool:
        """Captures the passes over a batch of this shape, without running them. False where it cannot be captured."""
        if key in self._refused:
            return False
        tokens = batch.input_ids.numel()
        # A larger graph does not fit into the blocks of smaller ones, so it replaces them
        larger = tokens > self._largest
        if not self._has_room(self._saved_bytes[key], given_back=self._held_bytes if larger else 0):
            self._refused.add(key)
            return False
        if larger:
            self._release()
        while len(self.captured) >= _MOST:
            self._saved_bytes.pop(oldest := next(iter(self.captured)))
            del self.captured[oldest]
        before, stream = torch.cuda.memory_reserved(), torch.cuda.current_stream()
        failure, no_room = "", False
        try:
            self.captured[key] = self._capture_passes(batch.copy())
        except RuntimeError as error:
            traceback.clear_frames(error.__traceback__)
            failure, no_room = str(error), isinstance(error, torch.OutOfMemoryError)
        finally:
            torch.cuda.set_stream(stream)  # a capture that fails does not restore it
            torch._C._cuda_clearCublasWorkspaces()  # else 67 MB of each stream that was captured on stay
            self._show(batch)
        if failure:
            self._recover()
            if no_room:
                self._refused.add(key)
                return False
            self.enabled = False
            logging.getLogger(__name__).warning("steps cannot be captured as CUDA graphs: %s", failure)
            return False
        self._held_bytes += torch.cuda.memory_reserved() - before
        self._largest = max(self._largest, tokens)
        return True

    def _has_room(self, saved: int, *, given_back: int) -> bool:
        """Whether a graph fits into memory beside what a step without one has needed so far.

        saved: bytes of activations that its forward saves. given_back: bytes of graphs that it replaces.
        """
        torch.cuda.empty_cache()  # torch does not do it during a capture
        needed = max(0, _MORE * saved - (self._held_bytes - given_back))  # graphs share one pool
        needed += torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        free, everything = torch.cuda.mem_get_info()
        return free + given_back >= needed + _SPARE * everything

    def _free_for(self, tokens: int) -> None:
        """Drops all graphs if a batch of `tokens` tokens is larger than all before it and does not fit beside them."""
        if tokens <= self._largest_eager:
            return
        if self.captured:
            allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
            needed = (torch.cuda.max_memory_allocated() - allocated) * tokens / self._largest_eager
            if free + torch.cuda.memory_reserved() - self._held_bytes - allocated < needed:
                self._release()
        self._largest_eager = tokens

    def _capture_passes(self, batch: Batch) -> _GraphPair:
        """Captures forward and backward over a batch, whose tensors the graphs will read. Raises RuntimeError."""
        self._show(batch)
        if self._pool is None:  # one pool and one stream, so that graphs share memory
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        # thread_local: other threads copy and write meanwhile, and are not captured
        capture = partial(torch.cuda.graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        forward, backward = self._graph(), torch.cuda.CUDAGraph()
        # A weight that autocast has cast in this pass must not be reused in the next one
        with capture(forward), _without_autocast_cache():
            hidden = self._run(batch)
        gradient = torch.zeros_like(hidden)
        with capture(backward), torch.autocast("cuda", enabled=False):
            torch.autograd.backward(hidden, gradient)
        return _GraphPair(batch, forward, backward, hidden.detach(), gradient, self._context.slots)

    def _graph(self) -> torch.cuda.CUDAGraph:
        """An empty graph, with the random generators of the slots that have dropout."""
        graph = torch.cuda.CUDAGraph()
        for dropout in self._context.dropouts.values():
            graph.register_generator_state(dropout.stream)
        return graph

    def _recover(self) -> None:
        """Cleans up after a capture that failed: torch's allocator still allocates from its pool, nothing owns the pool
        that would free it, and generators wait for a replay."""
        device = torch.cuda.current_device()
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)
        self.clear()
        with suppress(RuntimeError), torch.cuda.graph(self._graph()):
            torch.zeros(1, device="cuda")


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


class Replay(torch.autograd.Function):
    """Replays the forward graph, and in its backward the backward graph."""

    @staticmethod
    def forward(ctx: Any, _anchor: torch.Tensor, captured: _GraphPair, batch: Batch) -> torch.Tensor:
        """_anchor: [] float32, which requires a gradient, so that the result does. Gives [1, tokens, features] in the
        base's dtype."""
        for own, new in zip(captured.batch.layer_inputs, batch.layer_inputs, strict=True):
            own.copy_(new, non_blocking=True)
        captured.forward.replay()
        ctx.captured = captured
        return captured.hidden.detach()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        """grad: [1, tokens, features] in the base's dtype. Adds to the stack's gradients; the inputs have none."""
        ctx.captured.gradient.copy_(grad)
        ctx.captured.backward.replay()
        return None, None, None
