"""Our token ids and labels are exactly those of a real SFTTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import chat_completion_rows, completion_rows, message_rows, text_rows, write_jsonl
from trainables import preparing
from trainables.data import store
from trainables.settings import Settings

TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
CASES: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("text", text_rows(20), {}),
    ("text that ends", [{"text": row["text"] + "<|end|>"} for row in text_rows(20)], {}),
    ("text elsewhere", [{"body": row["text"]} for row in text_rows(20)], {"text_field": "body"}),
    ("completion", completion_rows(20), {}),
    ("completion, whole", completion_rows(20), {"completion_only_loss": False}),
    ("completion, cut", completion_rows(40), {"max_length": 10}),
    ("merging border", [{"prompt": row["prompt"][:-3], "completion": row["text"][1:]} for row in
                        [{**a, **b} for a, b in zip(completion_rows(20), text_rows(20), strict=True)]], {}),
    ("chat completion", chat_completion_rows(20), {}),
    ("chat completion, whole", chat_completion_rows(20), {"completion_only_loss": False}),
    ("chat completion, assistant", chat_completion_rows(20), {"assistant_only_loss": True}),
    ("messages", message_rows(20), {}),
    ("messages, cut", message_rows(20), {"max_length": 16}),
    ("messages, assistant", message_rows(20), {"assistant_only_loss": True}),
    ("messages, tools", [{**row, "tools": TOOLS} for row in message_rows(5)], {}),
    ("tokenized", [{"input_ids": [70, 71, 72 + i], "labels": [-100, 71, 72 + i]} for i in range(5)], {}),
    ("tokenized, cut", [{"input_ids": list(range(60 + i))} for i in range(5)], {}),
    ("conversations", [{"conversations": [{"from": m["role"], "value": m["content"]} for m in row["messages"]]}
                       for row in message_rows(20)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "data"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_equal_to_the_id(tiny_model: Path, tmp_path: Path, rows: list[dict[str, Any]], data: dict[str, Any]) -> None:
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    other = str(write_jsonl(tmp_path / "other.jsonl", rows))
    settings = Settings.model_validate(
        {
            "model": {"model_name_or_path": str(tiny_model)},
            "data": {"train": file, "validation": other, "max_length": 48, **data},
        }
    )
    ours = store.open_set(preparing.prepare(settings, tmp_path / "cache"), "train")
    theirs = trl_prepared(tiny_model, rows, settings, tmp_path)
    assert ours["input_ids"][:] == theirs["input_ids"][:]
    assert ours["labels"][:] == theirs["labels"][:]


def trl_prepared(model: Path, rows: list[dict[str, Any]], settings: Settings, folder: Path) -> Any:
    """The tokenized rows of an SFTTrainer that gets the same rows."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    data = settings.data
    args = SFTConfig(
        output_dir=str(folder / "trl"), max_length=data.max_length, dataset_text_field=data.text_field,
        completion_only_loss=data.completion_only_loss, assistant_only_loss=data.assistant_only_loss,
        report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    ).train_dataset
