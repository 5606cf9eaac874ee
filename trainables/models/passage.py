"""Finds the linear layers that learn from a row of text: one row passes through the base, and its gradient back.

A config does not say which layers a row reaches. Attention to images is skipped where there is none (Mllama), and some
code reads a layer's weight itself, past an adapter (Gemma 3n's AltUp while it trains, Mamba's dt_proj). An adapter
there would be saved without ever having moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.func import functional_call

from trainables.models import parts, targets
from trainables.models.parts import Kind

_TOKENS = 8
_FOUND: WeakKeyDictionary[Any, frozenset[str] | None] = WeakKeyDictionary()
"""By base: what `learning` has found, on the base as it was loaded."""


def learning(model: Any) -> frozenset[str] | None:
    """Names of the linear layers that a gradient reaches; None where such a pass fails.

    Experts in layers of their own all count: a row does not reach each of them. It is measured once for a base, with
    or without values. Nothing of the base is changed, nor the state of random generators.
    """
    if model not in _FOUND:
        try:
            _FOUND[model] = _measured(model)
        except Exception:  # a base that cannot compute so: what is known by names decides
            _FOUND[model] = None
    return _FOUND[model]


def _measured(model: Any) -> frozenset[str] | None:
    text = model.config.get_text_config()
    if getattr(text, "layerdrop", 0.0):  # a pass in training leaves layers out at random
        return None
    names, kinds = targets.linear_names(model), parts.of(model)
    passed = _passing(model, names)
    experts = {name for name in names if kinds[name].kind is Kind.EXPERTS}
    return frozenset(passed | experts) if passed else None


def _passing(model: Any, names: Sequence[str]) -> set[str]:
    """Names of the layers that a row passes through in training, and that its gradient reaches.

    Nothing is computed with a base without values, nor with one on the host of a GPU, which would take minutes: shapes
    pass through it.
    """
    embeddings = model.get_input_embeddings()
    device = embeddings.weight.device
    shapes, tensors = nullcontext(), dict[str, torch.Tensor]()
    if device.type == "meta" or (device.type == "cpu" and torch.cuda.is_available()):
        device, shapes, tensors = torch.device("cpu"), *_shapes(model)
    with shapes, _training(model), _outputs(model, names) as outputs, _same_random_numbers(device), torch.enable_grad():
        row = torch.arange(_TOKENS, device=device)[None] % (embeddings.num_embeddings - 1)
        logits = functional_call(model, tensors, kwargs={"input_ids": row, "use_cache": False}).logits
        reached = [(name, output) for name, made in outputs.items() for output in made if output.requires_grad]
        gradients = torch.autograd.grad(logits.float().sum(), [output for _, output in reached], allow_unused=True)
    return {name for (name, _), gradient in zip(reached, gradients, strict=True) if gradient is not None}


def _shapes(model: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The mode in which torch computes shapes alone, and by name of each tensor of the model its shape."""
    from torch._subclasses import FakeTensor, FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    held = chain(model.named_parameters(), model.named_buffers())
    cpu = torch.device("cpu")
    return mode, {name: FakeTensor(mode, tensor.detach().to("meta"), cpu) for name, tensor in held}


@contextmanager
def _training(model: Any) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _outputs(model: Any, names: Sequence[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Within it, the outputs [..., features] of the named layers by name; embeddings want a gradient."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def wants_gradient(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_()

    def keep(name: str) -> Any:
        def kept(_: Any, __: Any, output: Any) -> None:
            found[name] += [one for one in (output if isinstance(output, tuple) else (output,)) if torch.is_tensor(one)]

        return kept

    hooks = [model.get_input_embeddings().register_forward_hook(wants_gradient)]
    hooks += [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """Within it random numbers can be drawn: afterwards the generators are as before."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
