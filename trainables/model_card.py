"""What the card of an adapter says of its base and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.models.counting import Count
from trainables.settings import ModelSettings, Settings
from tuner.contract import Card


def card(settings: Settings, setup: Mapping[str, Any]) -> Card:
    """What the model card says of the base, of what was adapted, and of how the loss was measured.

    setup: that of the trial whose adapter it is.
    """
    model = settings.model
    revision = f" at `{model.model_revision}`" if model.model_revision else ""
    nf4 = " (NF4)" if model.quantization.kind == "nf4" else ""
    trained = Count(setup.get("trainable_parameters", 0), setup.get("total_parameters", 0))
    parts = (f"adapted parts: {setup['parts']}",) if setup.get("parts") else ()
    seen = setup.get("max_pixels")
    images = (f"images of at most {seen:,} pixels each, larger ones made smaller",) if isinstance(seen, int) else ()
    own_code = "**the base runs code of its own** (`trust_remote_code`)"
    return Card(
        what=f"A LoRA adapter for `{model.model_name_or_path}`{revision}{nf4}",
        library="peft",
        base=model.model_name_or_path,
        tags=("lora",),
        facts=(f"trainable parameters: {trained}", *parts, *images, *((own_code,) if model.trust_remote_code else ())),
        measured="The validation loss is SFTTrainer's `eval_loss`: the mean over batches of "
        f"{settings.train.per_device_eval_batch_size} rows, in file order, of the mean cross-entropy over the label "
        "tokens of each batch.",
        usage=_usage(model, str(setup.get("base_class", "")), with_processor=bool(images)),
    )


def _usage(model: ModelSettings, base_class: str, *, with_processor: bool) -> str:
    """Python that loads base and adapter. base_class: that of the base, "" where it is not known. with_processor:
    whether the processor of images is loaded too.

    A base that takes images too has weights of other names in transformers' class for text alone: an adapter would be
    loaded onto none of them, without an error.
    """
    if not (base_class.isidentifier() and base_class.endswith("ForConditionalGeneration")):
        return (
            "from peft import AutoPeftModelForCausalLM\n\n"
            'model = AutoPeftModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")'
        )
    revision = f", revision={model.model_revision!r}" if model.model_revision else ""
    names = f"AutoProcessor, {base_class}" if with_processor else base_class
    processor = '\nprocessor = AutoProcessor.from_pretrained("PATH_OF_THIS_FOLDER")' if with_processor else ""
    return (
        f"from peft import PeftModel\nfrom transformers import {names}\n\n"
        f"base = {base_class}.from_pretrained({model.model_name_or_path!r}{revision})\n"
        f'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER"){processor}'
    )
