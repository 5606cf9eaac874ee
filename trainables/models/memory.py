"""Estimates how much memory training needs, from a base's config and the headers of its files: torch-free, so that
`plan` can tell it.

It counts the tensors that a decoder of the Llama kind saves in its forward for its backward, in the order of their
computation. Over the grid of `scripts/bench_tokens.py` that is within 2% of the measured peaks: see BENCHMARKS.md.
Mixtures of experts are computed in the same way and were not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.models import base_folder, tower_memory
from trainables.models.experts import Experts, experts_of
from trainables.models.stored import Stored, stored_in
from trainables.settings import Settings, steps
from tuner.contract import Group

_WORKSPACE = 64 << 20
"""Bytes that cuBLAS allocates on an H200 at its first matrix product, and keeps."""


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its memory depends on."""

    hidden: int
    """Features of the hidden states."""
    intermediate: int
    """Features within the MLP."""
    layers: int
    """Decoder layers."""
    queries: int
    """Features of a token's queries, of all heads together."""
    key_values: int
    """Features of a token's keys, of all heads together; its values have as many."""
    vocabulary: int
    """Token ids."""
    tied: bool
    """Whether embeddings and output layer are one tensor."""
    experts: Experts | None = None
    """The experts of its MLPs; None where it has none."""

    @property
    def linear(self) -> int:
        """Parameters of the layers that an adapter may sit on, experts aside."""
        attention = 2 * self.hidden * (self.queries + self.key_values)
        return self.layers * attention + 3 * self.hidden * self._dense

    @property
    def routed(self) -> int:
        """Parameters of all experts that a router chooses from."""
        found = self.experts
        return 3 * self.hidden * found.layers * found.number * found.intermediate if found else 0

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings and of the output layer."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of an adapter of `rank` on all linear layers and experts."""
        attention = 4 * self.hidden + 2 * self.queries + 2 * self.key_values
        size = self.layers * rank * attention + 3 * rank * self._mlps * self.hidden + 3 * rank * self._dense
        if self.experts is None:
            return size
        # PEFT has one adapter of twice the rank for an expert's gate and up, which are one tensor
        each = 2 * rank * (self.hidden + 2 * self.experts.intermediate) + rank * (
            self.experts.intermediate + self.hidden
        )
        return size + self.experts.layers * self.experts.number * each

    @property
    def widest(self) -> int:
        """Features within the widest MLP of a layer that is no expert."""
        shared = self.experts.shared if self.experts else 0
        return max(shared, self.intermediate if self._plain else 0)

    @property
    def _plain(self) -> int:
        """Layers whose MLP has no experts."""
        return self.layers - (self.experts.layers if self.experts else 0)

    @property
    def _mlps(self) -> int:
        """MLPs that every token passes: shared experts, and those of layers without experts."""
        return self._plain + (self.experts.layers if self.experts and self.experts.shared else 0)

    @property
    def _dense(self) -> int:
        """Features within those MLPs, of all layers together."""
        return self._plain * self.intermediate + (self.experts.layers * self.experts.shared if self.experts else 0)

    @property
    def passed(self) -> int:
        """Features within the MLPs that a token passes, of all layers together, the experts chosen for it included."""
        found = self.experts
        return self._dense + (found.layers * found.chosen * found.intermediate if found else 0)


@dataclass(frozen=True)
class Need:
    """Bytes at the peak, by what they are for."""

    base: int
    """The base's weights, and with FSDP the layers that are gathered."""
    adapters: int
    """All adapters with their gradients and moments."""
    activations: int
    """Tensors that the forward saves for the backward."""
    passing: int
    """What is allocated only for a moment, and cuBLAS's workspace."""

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.base + self.adapters + self.activations + self.passing


def shape_of(config: Mapping[str, Any]) -> DecoderShape | None:
    """The sizes in a model's config.json; None where it is not a decoder of this kind, or does not say how many experts
    it has."""
    config = config.get("text_config") or config
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        layers = int(config["num_hidden_layers"])
        return DecoderShape(
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            layers=layers,
            queries=heads * head,
            key_values=int(config.get("num_key_value_heads") or heads) * head,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),
            experts=experts_of(config, layers),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def need(
    shape: DecoderShape,
    *,
    slots: int,
    tokens: int,
    rank: int,
    bf16: bool,
    nf4: bool,
    packed: bool,
    dropout: bool = False,
    shares: int = 1,
    stored: Stored | None = None,
) -> Need:
    """What `slots` trials at a time need, each with micro-batches of `tokens` tokens and an adapter of `rank`.

    bf16: the base is in bf16, else in fp32. nf4: its linear layers are in NF4. packed: the trials are on one base in
    the engine; else it is one trial by SFTTrainer, which saves more for every norm and adapter. dropout: with masks of
    all adapted layers' inputs; this part is computed and was not measured. shares: GPUs among which FSDP shards base
    and adapter; on each, a layer and the next one are gathered, and the embeddings while they are used. stored: what
    the base's files hold, which counts more than its config.
    """
    size = 2 if bf16 or nf4 else 4
    held = stored or Stored(quantizable=shape.linear, others=shape.embeddings + shape.routed)
    base = held.bytes(size, nf4=nf4)
    state = size if nf4 else 4
    adapters = slots * shape.adapter(rank) * (4 * state + (2 if bf16 and not nf4 and packed else 0))
    # Inputs and outputs of both norms, attention's q, k, v and output, that output transposed for o_proj; the gate
    # before and after its activation, `up`, and their product
    layers, passed = shape.layers, shape.passed
    kept = size * (layers * (6 * shape.hidden + shape.queries + 2 * shape.key_values) + 4 * passed)
    if shape.experts:  # each chosen expert's inputs and outputs, a row for each token that it gets
        kept += size * shape.experts.layers * shape.experts.chosen * 2 * shape.hidden
    if not packed:
        # Both norms in fp32, operation by operation, and a low-rank product in fp32 beside each layer's output
        kept += layers * 2 * 4 * shape.hidden + (size * (layers * shape.hidden + passed) if bf16 else 0)
    if dropout:  # the engine saves the factors; torch a byte each and the product
        kept += (size if packed else size + 1) * (layers * (5 * shape.hidden + shape.queries) + passed)
    all_tokens = slots * tokens
    if shares > 1:
        together = (base - shape.embeddings * size) * 2 // shape.layers + shape.embeddings * size
        base, adapters = base // shares + together, adapters // shares
    # Logits and their gradients take less than the layers above have freed by then. NF4 dequantizes a layer at a time
    passing = _WORKSPACE + (2 * shape.hidden * shape.widest if nf4 else 0)
    return Need(base, adapters, kept * all_tokens, passing)


def of_trial(settings: Settings, slots: int, group: Group) -> dict[str, int | None] | str | None:
    """Bytes at the peak on a GPU by what they are for, and `total`, for rows of `data.max_length` tokens. Where the
    base takes images and the trial is alone, `images` is what one of `data.max_pixels` in each row takes: None where
    config.json does not tell how many patches it has.

    None where the base's config is not at hand, and why it is not known where its sizes are not in there. slots: trials
    that are packed, 1 for one alone. group: the processes that train it, with a GPU each.
    """
    config = base_folder.config(settings.model)
    if config is None:
        return None
    shape = shape_of(config)
    if shape is None:
        return "config.json does not have the sizes of a decoder in the terms that the estimate knows"
    tensors, train = base_folder.tensors(settings.model), settings.train
    micro, bf16 = steps.split_of(train, group.size).micro, settings.model.dtype != "float32"
    nf4 = settings.model.quantization.kind == "nf4"
    found = need(
        shape, slots=slots, tokens=micro * settings.data.max_length, rank=train.lora_r, bf16=bf16, nf4=nf4,
        packed=slots > 1, dropout=train.lora_dropout > 0, shares=group.size if group.shares_base else 1,
        stored=stored_in(tensors, shape.vocabulary) if tensors else None,
    )  # fmt: skip
    parts: dict[str, int | None] = {**asdict(found)}
    if tower_memory.counts(config, settings) and slots == 1:
        tower, adapted = tower_memory.shape_of(config), settings.model.vision == "adapted"
        if tower is None and adapted:
            return tower_memory.UNKNOWN
        parts["images"] = None if tower is None else tower_memory.need(
            tower, images=micro, max_pixels=settings.data.max_pixels, rank=train.lora_r, adapted=adapted, bf16=bf16,
            nf4=nf4, others=found.activations,
        )  # fmt: skip
    return {**parts, "total": sum(size or 0 for size in parts.values())}
