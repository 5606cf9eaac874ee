"""TRL's collator for rows with images.

SFTTrainer makes the same one of its arguments. Here it is made once, so that a set is encoded with what trains on it.
"""

from __future__ import annotations

from typing import Any

from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from trainables.settings import DataSettings


def make(processor: Any, data: DataSettings, format_name: str, template: str | None, *, cut: bool = True) -> Any:
    """The collator for rows of a format. template: replaces the processor's chat template. cut: at max_length."""
    learned = data.completion_only_loss
    return DataCollatorForVisionLanguageModeling(
        processor=processor,
        max_length=data.max_length if cut else None,
        completion_only_loss=format_name == "prompt-completion" if learned is None else learned,
        assistant_only_loss=data.assistant_only_loss,
        chat_template=template,
    )
