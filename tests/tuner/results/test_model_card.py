"""The README of `best/`: the search's numbers, and what the program says of the adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.sft import SFT
from tuner.contract import Card
from tuner.results.model_card import model_card
from tuner.results.records import Point, SearchRecord, TrialRecord

SETUP = {"max_steps": 20, "trainable_parameters": 161_480_704, "total_parameters": 8_352_215_040}


def card_text(card: Card, setup: Mapping[str, Any]) -> str:
    winner = TrialRecord(number=3, params={"lora_r": 8}, setup=dict(setup), points=[Point(10, 1000, 2.5)])
    return model_card("first", SearchRecord(trials={3: winner}), winner, {"about": {}}, card)


def test_sft_says_what_was_adapted_and_how_its_loss_was_measured() -> None:
    model = {"model_name_or_path": "org/name", "model_revision": "abc", "quantization": {"kind": "nf4"}}
    given = {"model": model, "data": {"train": "rows.jsonl"}, "train": {"per_device_eval_batch_size": 4}}
    text = card_text(SFT.card(SFT.Settings.model_validate(given), SETUP), SETUP)
    assert text.startswith('---\nlibrary_name: peft\nbase_model: "org/name"\ntags: [lora, tuner]\n---\n')
    assert "A LoRA adapter for `org/name` at `abc` (NF4), the best of 1 trials." in text
    assert "- trainable parameters: 161.5M of 8.4B, 1.9%\n" in text and "trust_remote_code" not in text
    assert "SFTTrainer's `eval_loss`: the mean over batches of 4 rows, in file order" in text
    assert "```python\nfrom peft import AutoPeftModelForCausalLM\n\nmodel = Auto" in text and text.endswith("```\n")
    model |= {"trust_remote_code": True}
    trusting = SFT.card(SFT.Settings.model_validate(given), SETUP)
    assert "- **the base runs code of its own** (`trust_remote_code`)\n" in card_text(trusting, SETUP)


def test_sft_says_which_parts_are_adapted_and_loads_a_base_that_takes_images_as_its_own_class() -> None:
    given = {"model": {"model_name_or_path": "org/name", "model_revision": "abc"}, "data": {"train": "rows.jsonl"}}
    parts = "language: attention 4.2M, experts 61.0M; vision: none"
    setup = {**SETUP, "parts": parts, "base_class": "Qwen3_5ForConditionalGeneration"}
    text = card_text(SFT.card(SFT.Settings.model_validate(given), setup), setup)
    assert f"- adapted parts: {parts}\n" in text
    assert "from transformers import Qwen3_5ForConditionalGeneration\n\nbase = Qwen3_5For" in text
    assert "from_pretrained('org/name', revision='abc')\nmodel = PeftModel.from_pretrained(base, " in text
    assert "AutoProcessor" not in text and "pixels" not in text
    seeing = {**setup, "vision": "frozen", "max_pixels": 262144}
    text = card_text(SFT.card(SFT.Settings.model_validate(given), seeing), seeing)
    assert "- images of at most 262,144 pixels each, larger ones made smaller\n" in text
    assert "from transformers import AutoProcessor, Qwen3_5For" in text
    assert text.endswith('processor = AutoProcessor.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n')
    strange = {**SETUP, "base_class": "os; ForConditionalGeneration"}
    assert "os;" not in card_text(SFT.card(SFT.Settings.model_validate(given), strange), strange)


def test_a_program_that_says_nothing_is_called_by_no_other_programs_words() -> None:
    text = card_text(Card(), SETUP)
    assert text.startswith("---\ntags: [tuner]\n---\n") and "An adapter, the best of 1 trials." in text
    assert "validation loss **2.500000** at step 10 of 20" in text and "| lora_r | 8 |" in text
    assert not [word for word in ("LoRA", "peft", "SFTTrainer", "## Use", "unknown", "None") if word in text]
