"""Files of rows for the table of kinds: what writes them, and the rows in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Write = Callable[[Path], str | list[str]]
Rows = list[dict[str, Any]]
N = 4


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """What people call it."""
    write: Write
    """Writes it into a folder; gives the value of `data.train`."""
    learned: str = ""
    """The first training row as it is decoded; what is learned stands between « and ». "" where it is refused, and
    no setting helps."""
    said: tuple[str, ...] = ()
    """Parts of what is said: notes, or of the refusal."""
    refused: str = ""
    """Part of the refusal; `learned` is then what is learned once its `try:` was followed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of section `data`."""
    tools: str = ""
    """Which tools' users have it: Axolotl, LLaMA-Factory, Unsloth, OpenAI, TRL."""


def jsonl(rows: Rows, name: str = "rows.jsonl") -> Write:
    def write(folder: Path) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(folder / name)

    return write


def raw(name: str, content: str | bytes) -> Write:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(folder / name)

    return write


def several(*writes: Write, train: str = "") -> Write:
    """Several files, of which the setting names the folder, or `train` in it."""

    def write(folder: Path) -> str:
        for one in writes:
            one(folder)
        return str(folder / train) if train else str(folder)

    return write


def parquet(rows: Rows, name: str = "rows.parquet") -> Write:
    def write(folder: Path) -> str:
        import pyarrow
        import pyarrow.parquet

        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
        return str(folder / name)

    return write


def saved(**splits: Rows) -> Write:
    def write(folder: Path) -> str:
        import datasets

        datasets.disable_progress_bars()
        made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
        (made["train"] if set(made) == {"train"} else datasets.DatasetDict(made)).save_to_disk(folder / "set")
        return str(folder / "set")

    return write


def table(rows: Rows, separator: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(folder: Path) -> str:
    import pyarrow

    with pyarrow.output_stream(str(folder / "rows.jsonl.zst"), compression="zstd") as stream:
        stream.write(lines(PC))
    return str(folder / "rows.jsonl.zst")


def made(**columns: str) -> Rows:
    """Four rows: `{}` in a column's text becomes the row's number."""
    return [{name: text.format(i) for name, text in columns.items()} for i in range(N)]


def chat(*turns: tuple[str, str], keys: tuple[str, str] = ("role", "content")) -> list[list[dict[str, Any]]]:
    return [[dict(zip(keys, (role, text.format(i)), strict=True)) for role, text in turns] for i in range(N)]


PC = made(prompt="q{}", completion="a{}")
QA = made(question="q{}", answer="a{}")
TURNS = chat(("user", "q{}"), ("assistant", "a{}"))
WITH_SYSTEM = chat(("system", "s"), ("user", "q{}"), ("assistant", "a{}"))
SHAREGPT = chat(("system", "s"), ("human", "q{}"), ("gpt", "a{}"), keys=("from", "value"))
MESSAGES: Rows = [{"messages": turns} for turns in TURNS]
CHAT = "«<|user|>q0<|end|><|assistant|>a0<|end|>»"
CHAT_SYSTEM = "«<|system|>s<|end|><|user|>q0<|end|><|assistant|>a0<|end|>»"
ANSWER = "q0«a0<|end|>»"
BELOW = "Below is an instruction that describes a task"
RESPOND = "Write a response that appropriately completes the request."
ALPACA_INPUT = (f"{BELOW}, paired with an input that provides further context. {RESPOND}\n\n### Instruction:\ndo 0"
                "\n\n### Input:\nwith 0\n\n### Response:\n«a0<|end|>»")  # fmt: skip
ALPACA = f"{BELOW}. {RESPOND}\n\n### Instruction:\ndo 0\n\n### Response:\n«a0<|end|>»"
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
OTHER_CALL = {"type": "function", "function": {"name": "g", "arguments": {"y": "z"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
CALLING: Rows = [
    {"messages": [
        {"role": "user", "content": f"q{i}"},
        {"role": "assistant", "tool_calls": [CALL if i % 2 == 0 else OTHER_CALL]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": f"a{i}"},
    ]}
    for i in range(N)
]  # fmt: skip
CALL_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
BRANCHES = (
    "{% for m in messages %}{% if m.role == 'system' %}<|system|>{{ m.content }}<|end|>{% elif m.role == 'user' %}"
    "<|user|>{{ m.content }}<|end|>{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}"
)


def weighted() -> Rows:
    rows = chat(("user", "q{}"), ("assistant", "no{}"), ("user", "r{}"), ("assistant", "a{}"))
    for turns in rows:
        turns[1]["weight"], turns[3]["weight"] = 0, 1
    return [{"messages": turns} for turns in rows]


def parted() -> Rows:
    parts = [[{"role": t["role"], "content": [{"type": "text", "text": t["content"][:1]},
                                              {"type": "text", "text": t["content"][1:]}]} for t in turns]
             for turns in TURNS]  # fmt: skip
    return [{"messages": turns} for turns in parts]


def with_(rows: Rows, **more: Any) -> Rows:
    return [{**row, **more} for row in rows]


def changed(rows: Rows, index: int, **more: Any) -> Rows:
    return [{**row, **more} if i == index else row for i, row in enumerate(rows)]


PAIRS: Rows = made(prompt="q{}", chosen="a{}", rejected="b{}")
CHOSEN: Rows = [{"chosen": turns, "rejected": turns[:1]} for turns in TURNS]
TOKENS: Rows = [{"input_ids": [70, 71, 72 + i], "labels": [-100, 71, 72 + i]} for i in range(N)]
SQUAD: dict[str, Any] = {"version": "v2.0", "data": [
    {"title": f"t{i}", "paragraphs": [{"context": f"c{i}", "qas": [
        {"question": f"q{i}", "id": f"i{i}", "answers": [{"text": f"a{i}", "answer_start": 0}], "is_impossible": False},
        {"question": f"r{i}", "id": f"j{i}", "answers": [{"text": f"b{i}", "answer_start": 0}], "is_impossible": False},
    ]}]}
    for i in range(N)
]}  # fmt: skip
