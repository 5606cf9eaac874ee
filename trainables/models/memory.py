"""How much memory training needs, from a base's config alone: torch-free, so that `plan` can tell it.

Counted are the tensors that a decoder of the Llama kind keeps from its forward pass for its backward pass, in the order
in which they are made. Over the grid of `scripts/bench_tokens.py` that is within 2% of the measured peaks: see
BENCHMARKS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WORKSPACE = 64 << 20
"""What cuBLAS takes on an H200 at its first product, and keeps."""


@dataclass(frozen=True)
class Shape:
    """What counts of a decoder. key_values: width of keys, and of values."""

    hidden: int
    intermediate: int
    layers: int
    queries: int
    key_values: int
    vocabulary: int
    tied: bool

    @property
    def linear(self) -> int:
        """Parameters of the layers that an adapter may sit on."""
        attention = 2 * self.hidden * (self.queries + self.key_values)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embeddings(self) -> int:
        """Parameters of what is looked up and of the output layer."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of an adapter of `rank` on all linear layers."""
        attention = 4 * self.hidden + 2 * self.queries + 2 * self.key_values
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


@dataclass(frozen=True)
class Need:
    """Bytes: the base, all adapters with gradients and moments, what a step keeps, what it takes for a moment."""

    base: int
    adapters: int
    activations: int
    passing: int

    @property
    def total(self) -> int:
        """All of it at the peak."""
        return self.base + self.adapters + self.activations + self.passing


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a model's config.json; None where it is of another kind."""
    config = config.get("text_config") or config
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        return Shape(
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            queries=heads * head,
            key_values=int(config.get("num_key_value_heads") or heads) * head,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def need(
    shape: Shape, *, slots: int, tokens: int, rank: int, bf16: bool, nf4: bool, packed: bool, dropout: bool = False,
    shares: int = 1,
) -> Need:  # fmt: skip
    """What `slots` trials at a time need, each with micro-batches of `tokens` tokens and an adapter of `rank`.

    packed: on one base by the engine; else it is one trial by SFTTrainer, which keeps more of every norm and adapter.
    dropout: with masks of all adapted layers' inputs, which is arithmetic and was not measured.
    shares: GPUs that FSDP shares the base and the adapter out to; on each, a layer and the next one are put together,
    and the embeddings are while they are used.
    """
    size = 2 if bf16 or nf4 else 4
    # NF4: half a byte a weight, and per 64 of them a byte of scale
    base = int(shape.linear * (0.5 + 1 / 64 + 4 / 16384 if nf4 else size)) + shape.embeddings * size
    state = size if nf4 else 4
    adapters = slots * shape.adapter(rank) * (4 * state + (2 if bf16 and not nf4 and packed else 0))
    # The input of both norms, what they give, attention's q, k, v and output, the output laid out for o_proj; the
    # gate before and after its activation, `up`, and their product
    kept = size * (6 * shape.hidden + shape.queries + 2 * shape.key_values + 4 * shape.intermediate)
    if not packed:
        # Both norms step by step in fp32, and a low-rank product in fp32 beside each layer's output
        kept += 2 * 4 * shape.hidden + (size * (shape.hidden + shape.intermediate) if bf16 else 0)
    if dropout:  # the engine keeps the factors; torch a byte for each and what they leave
        kept += (size if packed else size + 1) * (5 * shape.hidden + shape.queries + shape.intermediate)
    all_tokens = slots * tokens
    if shares > 1:
        together = (base - shape.embeddings * size) * 2 // shape.layers + shape.embeddings * size
        base, adapters = base // shares + together, adapters // shares
    # Logits and gradients come and go in less than the layers above have given back. NF4 unpacks one layer at a time
    passing = _WORKSPACE + (2 * shape.hidden * shape.intermediate if nf4 else 0)
    return Need(base, adapters, shape.layers * kept * all_tokens, passing)
