"""Estimates the memory that images take beside the tokens in their places, from a base's config: torch-free.

An image's own tokens are among the `data.max_length` tokens of a row, which `memory.py` counts. This counts what its
patches take in the vision tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.settings import Settings

_ONE_SIZE = ("gemma3", "llava", "paligemma")
"""Model types whose processors bring every image to the one size of the tower, without tiles."""

UNKNOWN = "config.json does not tell how many patches an image has: the memory of images is not counted"


def counts(config: Mapping[str, Any], settings: Settings) -> bool:
    """Whether rows may have images. config: the content of the base's config.json."""
    return isinstance(config.get("vision_config"), Mapping) and settings.data.columns.get("images", "") is not None


@dataclass(frozen=True)
class TowerShape:
    """The sizes of a vision tower that its memory depends on."""

    hidden: int
    """Features of a patch."""
    intermediate: int
    """Features within the MLP."""
    layers: int
    """Its layers."""
    gated: bool
    """Whether the MLP has a gate, as a decoder's."""
    patch: int
    """Pixels of a patch's side."""
    frames: int
    """Times that an image is repeated, where patches have a depth."""
    fixed: int | None
    """Pixels of an image's side; None: images keep their size."""
    features: int
    """Features of what the tower hands to the decoder."""
    merged: int
    """Patches that become one token."""

    def patches(self, max_pixels: int) -> int:
        """Of an image of `max_pixels` pixels."""
        if self.fixed is not None:
            return (self.fixed // self.patch) ** 2
        return max(self.merged, max_pixels // self.patch**2)

    def adapter(self, rank: int) -> int:
        """Parameters of an adapter of `rank` on all linear layers of the tower's blocks."""
        attention = 6 * self.hidden  # q, k and v as one layer or as three: this is the least
        return self.layers * rank * (attention + (3 if self.gated else 2) * (self.hidden + self.intermediate))

    def saved(self, size: int, *, bf16: bool) -> int:
        """Bytes that the forward saves of a patch for the backward, where the tower is adapted.

        size: of a feature. bf16: the base computes in it, under autocast.
        """
        within = (4 if self.gated else 2) * self.intermediate
        kept = size * self.layers * (9 * self.hidden + within)
        kept += self.layers * 2 * 4 * self.hidden  # norms in fp32
        return kept + (size * self.layers * (self.hidden + within // 2) if bf16 else 0)

    def passing(self, size: int) -> int:
        """Bytes of a patch while a layer computes: queries and keys are in fp32 while they are turned."""
        attention = size * 5 * self.hidden + 4 * 4 * self.hidden
        return max(attention, size * (2 * self.hidden + (4 if self.gated else 2) * self.intermediate))

    def held(self, size: int) -> int:
        """Bytes of a patch for the whole step: its pixels in fp32, and what the decoder gets of it."""
        return 4 * 3 * self.frames * self.patch**2 + size * self.features // self.merged


def shape_of(config: Mapping[str, Any]) -> TowerShape | None:
    """The sizes in a model's config.json; None where it has no tower, or it does not say how many patches an image
    has: a processor that cuts images into tiles decides that."""
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return None
    keeps_size = isinstance(vision.get("spatial_merge_size"), int)
    if not keeps_size and config.get("model_type") not in _ONE_SIZE:
        return None
    text = config.get("text_config") or config
    try:
        hidden = int(vision.get("embed_dim") or vision["hidden_size"])
        side = None if keeps_size else int(vision["image_size"])
        patch = int(vision["patch_size"])
        return TowerShape(
            hidden=hidden,
            intermediate=int(vision.get("intermediate_size") or hidden * vision["mlp_ratio"]),
            layers=int(vision.get("depth") or vision["num_hidden_layers"]),
            gated=vision.get("hidden_act") == "silu",
            patch=patch,
            frames=int(vision.get("temporal_patch_size", 2 if keeps_size else 1)),
            fixed=side,
            features=int(text["hidden_size"]),
            merged=int(vision["spatial_merge_size"]) ** 2 if keeps_size else _merged(config, side or patch, patch),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def need(
    shape: TowerShape, *, images: int, max_pixels: int, rank: int, adapted: bool, bf16: bool, nf4: bool, others: int
) -> int:
    """Bytes that a micro-batch with `images` images of `max_pixels` pixels takes more than one of text.

    rank: of the adapter. adapted: whether it is on the tower too (`model.vision`). others: bytes that the decoder saves
    for its backward: a frozen tower has freed its own before.
    """
    size = 2 if bf16 or nf4 else 4
    patches = images * shape.patches(max_pixels)
    held, passing = patches * shape.held(size), patches * shape.passing(size)
    if not adapted:
        return held + max(0, passing - others)
    state = size if nf4 else 4
    return held + patches * shape.saved(size, bf16=bf16) + shape.adapter(rank) * 4 * state


def _merged(config: Mapping[str, Any], side: int, patch: int) -> int:
    """Patches that become one token, where images have one size."""
    tokens = config.get("mm_tokens_per_image")
    return max(1, (side // patch) ** 2 // tokens) if isinstance(tokens, int) and tokens > 0 else 1
