"""Merges an adapter into its base, to a model folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data import tokenizers
from trainables.models import base, base_folder, checkpoint, companions
from trainables.settings import ModelSettings, Settings, Unquantized
from tuner.contract import InputError

_WEIGHTS = "adapter_model.safetensors"


def merge(settings: Settings, adapter: Path, to: Path) -> None:
    """Merges `adapter` into the unquantized base and saves the result with its tokenizer, or processor. Raises
    InputError.

    An adapter trained over NF4 is merged into the full-precision weights: 4-bit weights cannot take the sum without
    being rounded again. A base that is stored quantized is expanded first.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if not (adapter / _WEIGHTS).is_file():  # PEFT would unpickle an adapter_model.bin
        raise InputError(f"has no {_WEIGHTS}", where=str(adapter), expected="an adapter in safetensors")
    adapted = PeftModel.from_pretrained(unrounded(settings.model), str(adapter))
    require_all(adapter, get_peft_model_state_dict(adapted))
    adapted.merge_and_unload().save_pretrained(str(to))
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    companions.write(tokenizer, base_folder.check(settings.model), to)


def unrounded(model: ModelSettings) -> Any:
    """Loads the base with weights that are not rounded to 4 or 8 bits when the adapter is added. Raises InputError."""
    stored = base_folder.stored_quantized(base_folder.config(model) or {})
    if not stored:
        return base.load(model.model_copy(update={"quantization": Unquantized()}))
    loaded = base.load(model)
    if getattr(loaded, "hf_quantizer", None) is None:  # expanded as it was loaded
        return loaded
    try:
        expanded = loaded.dequantize(base.dtype(model))
    except NotImplementedError:
        raise InputError(
            f"the base is stored quantized ({stored}) in a form that cannot be expanded here: nothing merges into it",
            where=model.model_name_or_path,
            expected="a base that is not quantized",
            remedy="export the adapter without --merge",
        ) from None
    # Saving reverses the conversions of the load, and that of 4-bit weights cannot be reversed
    expanded._weight_conversions = [step for step in expanded._weight_conversions if _is_reversible(step)]
    return expanded


def _is_reversible(conversion: Any) -> bool:
    """Whether transformers can undo a conversion that it made when it loaded the base."""
    try:
        conversion.reverse_transform()
    except NotImplementedError:
        return False
    return True


def require_all(adapter: Path, taken: dict[str, Any]) -> None:
    """Raises InputError for an adapter of another base: PEFT only warns, and leaves out what it cannot place.

    adapter: its folder. taken: the tensors that PEFT has loaded, by name.
    """
    lost = sorted(set(checkpoint.header(adapter / _WEIGHTS)) ^ set(taken))
    if lost:
        raise InputError(
            f"{len(lost)} of its weights do not belong to this base: {checkpoint.listed(lost)}",
            where=str(adapter),
            expected="the base that the adapter was trained on",
        )
