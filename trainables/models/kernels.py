"""Tells which attention kernel transformers takes for a base, and refuses one that the base does not have."""

from __future__ import annotations

from typing import Any

from trainables.settings import ModelSettings
from tuner.contract import InputError

_USUAL = "sdpa"


def notes(model: ModelSettings, shape: Any) -> tuple[str, ...]:
    """A note for the user where `auto` is another kernel than sdpa. shape: the base, with or without values."""
    chosen = str(shape.config.get_text_config()._attn_implementation)
    if model.attention is not None or chosen == _USUAL or not attends(shape):
        return ()
    return (f"attention runs as {chosen}: transformers has no {_USUAL} for {type(shape).__name__}",)


def refusal(model: ModelSettings, error: InputError) -> InputError:
    """The error for a base that cannot be loaded with the kernel of the settings, and can with `auto`. error: that of
    the load."""
    said = error.what.partition(" Please ")[0].partition(" yet.")[0].rstrip(".")
    return InputError(
        f"the base cannot be loaded with {model.attn_implementation}: {said}",
        where="model.attn_implementation",
        expected="auto, or a kernel that transformers has for this base and that is installed",
        remedy="set model.attn_implementation to auto",
    )


def attends(shape: Any) -> bool:
    """Whether any of the base's modules is attention: a Mamba has none."""
    return any("attn" in name or "attention" in name for name, _ in shape.named_modules())
