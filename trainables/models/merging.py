"""An adapter merged into its base, as a model folder of its own."""

from __future__ import annotations

from pathlib import Path

from trainables.data import tokenizers
from trainables.models import base
from trainables.settings import Settings, Unquantized
from tuner.contract import InputError


def merge(settings: Settings, adapter: Path, to: Path) -> None:
    """Merges `adapter` into the unquantized base and saves the result with its tokenizer.

    An adapter trained over NF4 is merged into the full-precision weights: 4-bit weights cannot take the sum without
    being rounded again.
    """
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():  # PEFT would go on to unpickle an adapter_model.bin
        raise InputError("has no adapter_model.safetensors", where=str(adapter), expected="an adapter in safetensors")
    plain = settings.model.model_copy(update={"quantization": Unquantized()})
    merged = PeftModel.from_pretrained(base.load(plain), str(adapter)).merge_and_unload()
    merged.save_pretrained(str(to))
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    tokenizer.save_pretrained(str(to))
