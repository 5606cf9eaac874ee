"""Counts the parameters of a base by the headers of its safetensors files. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from trainables.models.checkpoint import Tensor

_NF4 = 0.5 + 1 / 64 + 4 / 16384
"""Bytes of a weight in NF4: half a byte, and per 64 of them a byte of scale."""


@dataclass(frozen=True)
class Stored:
    """What a base's files hold."""

    quantizable: int
    """Parameters of linear layers, which NF4 quantizes."""
    others: int
    """Other parameters: embeddings, output layer, norms, and experts, which transformers holds in one tensor a layer
    that NF4 leaves as it is."""
    fixed: int = 0
    """Bytes of tensors that are stored quantized, and are loaded as they are."""

    @property
    def parameters(self) -> int:
        """All parameters that are not stored quantized."""
        return self.quantizable + self.others

    def bytes(self, size: int, *, nf4: bool) -> int:
        """Bytes of memory that they take. size: of a parameter that is not quantized."""
        return int(self.quantizable * (_NF4 if nf4 else size)) + self.others * size + self.fixed


def stored_in(tensors: Mapping[str, Tensor], vocabulary: int | None) -> Stored:
    """What these tensors hold. vocabulary: token ids, by which embeddings and output layer are known."""
    quantizable = others = fixed = 0
    for name, tensor in tensors.items():
        numbers = prod(tensor.shape)
        if not tensor.dtype.startswith(("F", "BF")) or tensor.dtype.startswith("F8"):
            fixed += tensor.end - tensor.begin
        elif len(tensor.shape) == 2 and tensor.shape[0] != vocabulary and ".experts." not in name:
            quantizable += numbers
        else:
            others += numbers
    return Stored(quantizable, others, fixed)
