"""Five kinds of file that `tuner data` is shown on, and a tokenizer for them: none of it needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import END, PAD, sentences

TEMPLATE = (
    "{% if tools %}<|system|>{% for tool in tools %}{{ tool.function.name }}: {{ tool.function.description }}\n"
    "{% endfor %}<|end|>{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}{% generation %}"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments.city }})"
    "{% endfor %}<|end|>{% endgeneration %}{% else %}{{ message.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Saves a byte-level BPE tokenizer that AutoTokenizer's plain class loads, beside a config.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = [END, PAD, "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(sentences(400), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 400}')
    return folder


def _completions() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"prompt": f"reverse: {s} =>", "completion": " " + " ".join(reversed(s.split()))} for s in sentences(40)
    ]
    return [*rows, rows[3], {"prompt": "reverse: the long one => ", "completion": " ".join(sentences(12, seed=5))}]


def _messages() -> list[dict[str, Any]]:
    turns = ("user", "assistant", "user", "assistant")
    return [
        {"messages": [{"role": role, "content": text} for role, text in zip(turns, sentences(4, seed=i), strict=True)],
         "id": i}
        for i in range(24)
    ]  # fmt: skip


def _texts() -> list[dict[str, Any]]:
    odd = [
        {"text": "tabs\tand two lines\n\nthen an escape \x1b[31mred\x1b[0m and a bell \x07"},
        {"text": "שלום עולם, the cat sat"},
        {"text": "<script>alert('the cat')</script> & <b>the mat</b>"},
    ]
    return [*odd, *({"text": text} for text in sentences(21))]


def _tools() -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": schema}}
    rows = []
    for city in ("Rome", "Oslo", "Lima", "Kyiv", "Bern", "Bonn", "Graz", "Linz"):
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        turns = [
            {"role": "user", "content": f"is the sun out in {city}"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "the sun"},
            {"role": "assistant", "content": f"the sun is out in {city}"},
        ]
        rows.append({"messages": turns, "tools": [tool]})
    return rows


def _faults() -> list[dict[str, Any]]:
    rows = _completions()[:20]
    rows[4] = {"prompt": "reverse: a number =>", "completion": 7}
    rows[8] = {"prompt": "reverse: nothing =>", "completion": ""}
    rows[11] = {"prompt": " ".join(sentences(10, seed=3)) + " =>", "completion": " beyond"}
    rows[15] = {"prompt": "reverse: no answer =>", "source": "a log"}
    return rows


KINDS = {
    "prompt and completion": ("completions.jsonl", _completions),
    "messages": ("messages.jsonl", _messages),
    "text": ("texts.jsonl", _texts),
    "tools": ("tools.jsonl", _tools),
    "faults": ("faults.jsonl", _faults),
}


def folder_of_files(folder: Path) -> Path:
    """Writes the five files and a tokenizer, `base`, into a folder; gives the folder."""
    make_tokenizer(folder / "base")
    write(folder)
    return folder


def write(folder: Path) -> dict[str, Path]:
    """Writes the five files, a JSON object a line."""
    made = {}
    for name, (file, rows) in KINDS.items():
        made[name] = folder / file
        made[name].write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return made
