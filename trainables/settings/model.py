"""Section `model`: which base, at which precision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainables.settings.section import PATH, Section


class Unquantized(Section):
    """The base in bf16 or fp32."""

    kind: Literal["none"] = "none"


class NF4(Section):
    """The base in 4-bit NormalFloat (QLoRA)."""

    kind: Literal["nf4"] = "nf4"

    double_quant: bool = True
    """Quantize the quantization constants too: 0.4 bits a parameter less."""

    compute_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """The dtype of the products with 4-bit weights; auto: bfloat16, float32 on a CPU without bfloat16."""


def _bare_word(value: Any) -> Any:
    if value is None:
        return {"kind": "none"}
    return {"kind": value} if isinstance(value, str) else value


def _null_is_auto(value: Any) -> Any:
    """Settings of earlier runs have null."""
    return "auto" if value is None else value


_Union = Annotated[Unquantized | NF4, Field(discriminator="kind")]
Quantization = Annotated[_Union, BeforeValidator(_bare_word, json_schema_input_type=Literal["none", "nf4"] | _Union)]


class ModelSettings(Section):
    """Which base model, at which precision."""

    model_name_or_path: str = Field(min_length=1, json_schema_extra=PATH)
    """Hub id ("Qwen/Qwen3-8B") or local folder of the base model."""

    model_revision: str | None = None
    """Branch, tag or commit of a hub id. It is resolved to a commit when the search begins, for all trials."""

    tokenizer_name_or_path: str | None = Field(default=None, json_schema_extra=PATH)
    """Hub id or local folder of the tokenizer; null: the model's own."""

    tokenizer_revision: str | None = None
    """Branch, tag or commit of a tokenizer that has a hub id of its own."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of the base; auto: bfloat16 where the GPU has it, float32 on the CPU."""

    quantization: Quantization = Unquantized()
    """`none`, or `nf4` for QLoRA."""

    attn_implementation: Annotated[str, BeforeValidator(_null_is_auto)] = Field(default="auto", min_length=1)
    """Attention kernel, by transformers' name; auto: what transformers takes for the base, `sdpa` where it has that. A
    kernel of the hub (org/name) is code, and needs trust_remote_code."""

    vision: Literal["frozen", "adapted"] = "frozen"
    """Whether the parts that take images get an adapter too: the tower and the projector. For rows with images."""

    fingerprint: Literal["sampled", "whole"] = "sampled"
    """How a resume compares the base's weights: by samples of every tensor, or by every byte."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Needs model_revision, so that the code cannot change unseen."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> ModelSettings:
        if self.trust_remote_code and not self.model_revision:
            raise ValueError("trust_remote_code needs model_revision: pin the commit whose code you trust")
        return self

    @model_validator(mode="after")
    def _kernel_is_trusted(self) -> ModelSettings:
        if "/" in self.attn_implementation and not self.trust_remote_code:
            raise ValueError("attn_implementation names code on the hub: it needs trust_remote_code")
        return self

    @property
    def attention(self) -> str | None:
        """The attention kernel by transformers' name; None: transformers chooses."""
        return None if self.attn_implementation == "auto" else self.attn_implementation

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer comes from."""
        return self.tokenizer_name_or_path or self.model_name_or_path
