"""The kinds of file that people own: what is said about each, and what is learned from it.

One table for the tests and for docs/coming-from.md. Every kind has four rows, of which the first is shown.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
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
_BELOW = "Below is an instruction that describes a task"
_RESPOND = "Write a response that appropriately completes the request."
ALPACA_INPUT = (f"{_BELOW}, paired with an input that provides further context. {_RESPOND}\n\n### Instruction:\ndo 0"
                "\n\n### Input:\nwith 0\n\n### Response:\n«a0<|end|>»")  # fmt: skip
ALPACA = f"{_BELOW}. {_RESPOND}\n\n### Instruction:\ndo 0\n\n### Response:\n«a0<|end|>»"
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

KINDS: list[Kind] = [
    # --- TRL's own ---
    Kind("prompt and completion", jsonl(PC), ANSWER, tools="TRL"),
    Kind("messages", jsonl(MESSAGES), CHAT, tools="TRL, OpenAI, LLaMA-Factory `sharegpt` with OpenAI tags"),
    Kind("text", jsonl(made(text="q{0} a{0}")), "«q0 a0<|end|>»", tools="TRL, Axolotl `completion`"),
    Kind("prompt and completion as messages", jsonl([{"prompt": t[:1], "completion": t[1:]} for t in TURNS]),
         "<|user|>q0<|end|><|assistant|>«a0<|end|>»", tools="TRL"),
    Kind("a prompt of messages, a completion of text", jsonl([{"prompt": t[:1], "completion": f"a{i}"}
         for i, t in enumerate(TURNS)]), "<|user|>q0<|end|><|assistant|>«a0<|end|>»"),
    Kind("a prompt of text, a completion of messages", jsonl([{"prompt": f"q{i}", "completion": t[1:]}
         for i, t in enumerate(TURNS)]), "<|user|>q0<|end|><|assistant|>«a0<|end|>»"),
    Kind("rows already tokenized", jsonl(TOKENS), "b«cd»", ("the rows are tokenized already",), tools="TRL, Axolotl"),
    # --- Alpaca ---
    Kind("Alpaca", jsonl(made(instruction="do {}", input="with {}", output="a{}")), ALPACA_INPUT,
         ("read as Alpaca's format",), tools="Axolotl `alpaca`, LLaMA-Factory `alpaca`, Unsloth"),
    Kind("Alpaca with an empty input", jsonl(made(instruction="do {}", input="", output="a{}")), ALPACA,
         ("read as Alpaca's format",)),
    Kind("Alpaca without input", jsonl(made(instruction="do {}", output="a{}")), ALPACA, ("read as Alpaca's format",)),
    Kind("Alpaca for a chat model", jsonl(made(instruction="do {}", input="with {}", output="a{}", system="s")),
         "<|system|>s<|end|><|user|>do 0\nwith 0<|end|><|assistant|>«a0<|end|>»",
         ("instruction and input are the user's turn", "the column 'system' is read as a turn of its own"),
         settings={"as_chat": True}, tools="LLaMA-Factory `alpaca`"),
    Kind("Alpaca with a prompt of one's own", jsonl(made(instruction="do {}", input="with {}", output="a{}")),
         "do 0: with 0\n«a0<|end|>»", settings={"prompt_template": "{instruction}: {input}\n"}),
    Kind("Alpaca with a history", jsonl(with_(made(instruction="do {}", input="with {}", output="a{}"),
         history=[["h", "b"], ["i", "c"]])),
         "<|user|>h<|end|><|assistant|>«b<|end|>»<|user|>i<|end|><|assistant|>«c<|end|>»<|user|>do 0\nwith 0<|end|>"
         "<|assistant|>«a0<|end|>»",
         ("'history' the turns before it, whose answers are learned too",), tools="LLaMA-Factory `alpaca`"),
    Kind("Alpaca with a history and a system text", jsonl(with_(made(instruction="do {}", output="a{}", system="s"),
         history=[["h", "b"]])), "<|system|>s<|end|><|user|>h<|end|><|assistant|>«b<|end|>»<|user|>do 0<|end|>"
         "<|assistant|>«a0<|end|>»", ("whose answers are learned too", "the column 'system' is read as a turn"),
         tools="LLaMA-Factory `alpaca`"),
    Kind("Alpaca whose history is left out", jsonl(with_(made(instruction="do {}", input="with {}", output="a{}"),
         history=[["h", "b"]])), ALPACA_INPUT, ("read as Alpaca's format", "columns that are not used: 'history'"),
         settings={"columns": {"history": None}}),
    Kind("a history of one's own columns", jsonl(with_(QA, before=[["h", "b"]])),
         "<|user|>h<|end|><|assistant|>«b<|end|>»<|user|>q0<|end|><|assistant|>«a0<|end|>»",
         settings={"columns": {"prompt": "question", "completion": "answer", "history": "before"}},
         tools="LLaMA-Factory `columns`"),
    Kind("a history that is no pairs", jsonl(changed(with_(made(instruction="do {}", output="a{}"),
         history=[["h", "b"]]), 2, history=["h", "b"])), "<|user|>h<|end|><|assistant|>«b<|end|>»<|user|>do 0<|end|>"
         "<|assistant|>«a0<|end|>»", refused="'history' has 'h'"),
    # --- ShareGPT and other chats ---
    Kind("ShareGPT", jsonl([{"conversations": t} for t in SHAREGPT]), CHAT_SYSTEM,
         ("human → user, gpt → assistant",), tools="Axolotl `sharegpt`, LLaMA-Factory `sharegpt`, Unsloth"),
    Kind("ShareGPT with a system column", jsonl([{"conversations": t[1:], "system": "s"} for t in SHAREGPT]),
         CHAT_SYSTEM, ("human → user", "the column 'system' is read as a turn of its own"),
         tools="LLaMA-Factory `sharegpt`"),
    Kind("ShareGPT with functions", jsonl([{"conversations": [*t[1:2], {"from": "function_call", "value": "f()"},
         {"from": "observation", "value": "1"}, t[2]]} for t in SHAREGPT]),
         "«<|user|>q0<|end|><|assistant|>f()<|end|><|tool|>1<|end|><|assistant|>a0<|end|>»",
         ("function_call → assistant", "observation → tool"), tools="LLaMA-Factory `sharegpt`"),
    Kind("messages whose roles are human and bot", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("human", "bot"), strict=True)]} for t in TURNS]), CHAT, ("human → user, bot → assistant",)),
    Kind("messages of a chatbot", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("User", "Chatbot"), strict=True)]} for t in TURNS]), CHAT, ("User → user, Chatbot → assistant",),
         tools="Cohere"),
    Kind("turns with other keys", jsonl([{"thread": [{"speaker": m["role"], "utterance": m["content"]} for m in t]}
         for t in TURNS]), CHAT, refused="the columns are 'thread'",
         said=("set data.columns to {messages: thread, role: speaker, content: utterance}",)),
    Kind("turns with role and text", jsonl([{"dialog": [{"role": m["role"], "text": m["content"]} for m in t]}
         for t in TURNS]), CHAT, refused="the turns of 'dialog' have 'role', 'text'",
         said=("set data.columns to {messages: dialog, role: role, content: text}",)),
    Kind("messages as JSON in a text", jsonl([{"messages": json.dumps(t)} for t in TURNS]), CHAT,
         ("4 of 4 rows have their turns as JSON in a text",), tools="tables of texts"),
    Kind("messages within another column", jsonl([{"custom_id": f"i{i}", "method": "POST", "body": {"messages": t}}
         for i, t in enumerate(TURNS)]), CHAT, refused="the columns are 'custom_id', 'method', 'body'",
         said=('set data.columns to {messages: "body.messages"}',), tools="OpenAI batch files"),
    Kind("messages with Cohere's roles", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("System", "User", "Chatbot"), strict=True)]} for t in WITH_SYSTEM]), CHAT_SYSTEM,
         ("System → system, User → user, Chatbot → assistant",)),
    Kind("roles of one's own", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("Customer", "Clerk"), strict=True)]} for t in TURNS]),
         "«<|Customer|>q0<|end|><|Clerk|>a0<|end|>»",
         ("chat templates are not made for the roles 'Customer', 'Clerk'",
          "4 of 4 rows have no turn of the assistant")),
    Kind("roles of one's own, mapped", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("Customer", "Clerk"), strict=True)]} for t in TURNS]), CHAT,
         ("Customer → user, Clerk → assistant",), tools="Axolotl `roles`",
         settings={"roles": {"Customer": "user", "Clerk": "assistant"}}),
    Kind("content in parts", jsonl(parted()), CHAT, ("content in parts, whose texts are joined",), tools="OpenAI"),
    Kind("an image in a message", jsonl([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}] * N),
         refused="a part of type 'image_url', which is no text"),
    Kind("turns of weight 0", jsonl(weighted()),
         "«<|user|>q0<|end|>»<|assistant|>no0<|end|>«<|user|>r0<|end|><|assistant|>a0<|end|>»",
         ("4 of 4 rows have turns with weight 0",), tools="OpenAI, Axolotl `train`"),
    Kind("tool calls", jsonl(CALLING), "«<user>q0<assistant>f{\"x\": 1}<tool>1<assistant>a0»",
         settings={"chat_template": CALL_TEMPLATE}, tools="OpenAI, TRL"),
    Kind("tool calls out of Parquet", parquet(CALLING), "«<user>q0<assistant>f{\"x\": 1}<tool>1<assistant>a0»",
         settings={"chat_template": CALL_TEMPLATE}, tools="TRL"),
    Kind("a function call and functions", jsonl([{"messages": [{"role": "user", "content": f"q{i}"},
         {"role": "assistant", "content": None, "function_call": CALL["function"]}],
         "functions": [{"name": "f"}]} for i in range(N)]),
         "«f;<user>q0<assistant>f{\"x\": 1}»",
         settings={"chat_template": "{% for t in tools %}{{ t.function.name }};{% endfor %}" + CALL_TEMPLATE},
         tools="OpenAI, until 2023"),
    Kind("tool calls whose arguments are text", jsonl([{"messages": [{"role": "user", "content": f"q{i}"},
         {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"x": 1}'}}]}]}
         for i in range(N)]), '«<user>q0<assistant>f"{\\"x\\": 1}"»',
         ("the chat template writes as JSON what is JSON already: arguments of tool calls are text in 4 of 4 rows",),
         settings={"chat_template": CALL_TEMPLATE}, tools="OpenAI"),
    Kind("reasoning that the template does not write", jsonl([{"messages": [t[0], {**t[1], "reasoning_content": "r"}]}
         for t in TURNS]), CHAT, ("does not write reasoning of the assistant, which 4 of 4 rows have",),
         tools="files of reasoning models"),
    Kind("tools that the template does not write", jsonl(with_(CALLING, tools=TOOLS)),
         "«<|user|>q0<|end|><|assistant|><|end|><|tool|>1<|end|><|assistant|>a0<|end|>»",
         ("the chat template does not write tool calls of the assistant, which 4 of 4 rows have",
          "the chat template does not write tools")),
    Kind("tools as JSON text", jsonl(with_(MESSAGES, tools=json.dumps(TOOLS))), CHAT,
         ("the chat template does not write tools",)),
    Kind("roles that the template does not know", jsonl([{"messages": [{**m, "role": r} for m, r in
         zip(t, ("system", "asker", "answerer"), strict=True)]} for t in WITH_SYSTEM]),
         refused="does not write turns of the role 'asker'", settings={"chat_template": BRANCHES}),
    Kind("only turns of the user", jsonl([{"messages": t[:1]} for t in TURNS]), "«<|user|>q0<|end|>»",
         ("4 of 4 rows have no turn of the assistant",)),
    # --- columns of any name ---
    Kind("question and answer", jsonl(QA), ANSWER, refused="the columns are 'question', 'answer'",
         said=("set data.columns to {prompt: question, completion: answer}",)),
    Kind("a mapping of columns", jsonl(QA), ANSWER, tools="Axolotl `field_*`, LLaMA-Factory `columns`",
         settings={"columns": {"prompt": "question", "completion": "answer"}}),
    Kind("a prompt template", jsonl(QA), "### Question: q0\n«a0<|end|>»", tools="Unsloth",
         settings={"prompt_template": "### Question: {question}\n", "columns": {"completion": "answer"}}),
    Kind("context, question and answer", jsonl(made(context="c{}", question="q{}", answer="a{}", id="i{}")),
         "c0\n\nq0\n\n«a0<|end|>»", refused="the columns are 'context', 'question', 'answer', 'id'",
         said=("set data.prompt_template to", "'id' is then not read")),
    Kind("instruction, context and response (Dolly)", jsonl(made(instruction="do {}", context="c{}", response="a{}",
         category="x")), "c0\n\ndo 0\n\n«a0<|end|>»", refused="the columns are 'instruction', 'context'",
         said=("'category' is then not read",)),
    Kind("answers in an object (SQuAD)", jsonl([{"context": f"c{i}", "question": f"q{i}",
         "answers": {"text": [f"a{i}"], "answer_start": [0]}} for i in range(N)]), "c0\n\nq0\n\n«a0<|end|>»",
         refused="the columns are 'context', 'question', 'answers'",
         said=('set data.columns to {completion: "answers.text"}',), tools="SQuAD"),
    Kind("system, question and response", jsonl(made(system_prompt="s", question="q{}", response="a{}")),
         "s\n\nq0«a0<|end|>»", refused="the columns are 'system_prompt', 'question', 'response'",
         said=("set data.columns to {prompt: question, system: system_prompt, completion: response}",)),
    Kind("Prompt and Completion", jsonl(made(Prompt="q{}", Completion="a{}")), ANSWER,
         refused="the columns are 'Prompt'",
         said=("set data.columns to {prompt: Prompt, completion: Completion}",)),
    Kind("a text of another name", jsonl(made(body="q{}")), "«q0<|end|>»", refused="the columns are 'body'",
         said=("set data.text_field to body",)),
    Kind("a mistyped column", jsonl(QA), ANSWER, refused="the rows have no column 'quesion'",
         settings={"columns": {"prompt": "quesion", "completion": "answer"}}),
    Kind("a mistyped column in a template", jsonl(QA), "Q: q0\n«a0<|end|>»",
         refused="the rows have no column 'quesion'",
         settings={"prompt_template": "Q: {quesion}\n", "columns": {"completion": "answer"}}),
    Kind("an answer that is no text", jsonl([{"context": "c", "question": f"q{i}", "answers": {"text": ["a", "b"]}}
         for i in range(N)]), refused="the columns are 'context', 'question', 'answers'"),
    Kind("Alpaca beside a text", jsonl(made(instruction="do {}", output="a{}", text="t{}")), "«t0<|end|>»",
         ("data.format prompt-completion reads 'instruction', 'output'",), tools="Stanford's Alpaca"),
    Kind("Alpaca beside a text that is not meant", jsonl(made(instruction="do {}", output="a{}", text="t{}")), ALPACA,
         ("read as Alpaca's format", "columns that are not used: 'text'"), settings={"format": "prompt-completion"}),
    Kind("turns beside a text", jsonl([{"conversations": t[1:], "text": f"t{i}"} for i, t in enumerate(SHAREGPT)]),
         "«t0<|end|>»", ("data.format messages reads 'conversations'",), tools="Unsloth"),
    Kind("turns beside a text that is not meant", jsonl([{"conversations": t[1:], "text": f"t{i}"}
         for i, t in enumerate(SHAREGPT)]), CHAT, ("human → user", "columns that are not used: 'text'"),
         settings={"format": "messages"}),
    Kind("columns that are not used", jsonl(with_(PC, id="x7", meta={"a": 1})), ANSWER,
         ("columns that are not used:", "'id'", "'meta'")),
    Kind("messages beside prompt and completion", jsonl([{**m, **p} for m, p in zip(MESSAGES, PC, strict=True)]),
         ANSWER,
         ("columns that are not used: 'messages'",)),
    Kind("a system column beside texts", jsonl(with_(PC, system="s")), "s\n\nq0«a0<|end|>»",
         ("the column 'system' is read as the beginning of the prompt",)),
    Kind("texts for a chat model", jsonl(PC), "<|user|>q0<|end|><|assistant|>«a0<|end|>»", settings={"as_chat": True}),
    Kind("a number as the completion", jsonl([{"prompt": f"q{i}", "completion": i} for i in range(N)]), "q0«0<|end|>»"),
    # --- preferences ---
    Kind("preference rows", jsonl(PAIRS), ANSWER, refused="these are preference rows",
         said=("one answer to learn",), tools="TRL DPO"),
    Kind("preference rows of messages", jsonl(CHOSEN), CHAT, refused="these are preference rows", tools="TRL DPO"),
    Kind("answers with a label", jsonl(with_(PC, label=True)), ANSWER, refused="an answer with a label true or false",
         tools="TRL KTO"),
    # --- what is empty, there twice or broken ---
    Kind("an empty completion", jsonl(changed(PC, 1, completion=" ")), ANSWER,
         ("1 of 4 rows are empty and are left out: 'completion' is empty (",)),
    Kind("a null", jsonl(changed(PC, 1, completion=None)), ANSWER, ("1 of 4 rows are empty and are left out",)),
    Kind("a NaN", raw("rows.jsonl", lines(changed(PC, 1, completion=float("nan")))), ANSWER,
         ("1 of 4 rows are empty and are left out",)),
    Kind("a null in Parquet", parquet(changed(PC, 1, completion=None)), ANSWER,
         ("1 of 4 rows are empty and are left out: 'completion' is empty (", "row 2")),
    Kind("an empty cell in CSV", raw("rows.csv", table(changed(PC, 1, completion=""), ",")), ANSWER,
         ("1 of 4 rows are empty and are left out",)),
    Kind("a null that is to be refused", jsonl(changed(PC, 1, completion=None)), ANSWER,
         refused="'completion' is empty", settings={"on_bad_row": "refuse"}),
    Kind("rows of several formats in one file", jsonl([*PC[:2], *MESSAGES[2:]]), ANSWER,
         refused="no 'prompt': the row has 'messages' (and 1 more of 4 rows cannot be used)"),
    Kind("a row that is there twice", jsonl([*PC, PC[0]]), ANSWER, ("1 of 5 rows repeat another",)),
    Kind("twice, where that is to be refused", jsonl([*PC, PC[0]]), ANSWER,
         refused="1 of 5 rows are there more than once", settings={"on_duplicate": "refuse"}),
    # --- files ---
    Kind("a JSON array", raw("rows.json", json.dumps(PC, indent=1)), ANSWER),
    Kind("a JSON array called .jsonl", raw("rows.jsonl", json.dumps(PC, indent=1)), ANSWER),
    Kind("one object a line called .json", raw("rows.json", lines(PC)), ANSWER),
    Kind("an object with a list", raw("rows.json", json.dumps({"version": 1, "data": PC})), ANSWER),
    Kind("an object with a list for each column", raw("rows.json", json.dumps(
         {name: [row[name] for row in PC] for name in PC[0]})), ANSWER),
    Kind("an object with a list for each split", raw("rows.json", json.dumps({"train": PC, "validation": made(
         prompt="v{}", completion="a{}")})), ANSWER, ("the validation rows are the split 'validation'",)),
    Kind("an object of rows by their numbers", raw("rows.json", json.dumps(dict(enumerate(PC)))), ANSWER),
    Kind("objects over several lines", raw("rows.jsonl", "\n".join(json.dumps(row, indent=1) for row in PC)),
         refused="malformed JSON", said=("jq -c . rows.jsonl > lines.jsonl",)),
    Kind("Python's own notation", raw("rows.jsonl", "\n".join(map(str, PC))), refused="malformed JSON",
         said=("write the rows with json.dumps",)),
    Kind("a pointer of Git LFS",
         raw("rows.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
         refused="is a pointer of Git LFS and not the file", said=("git lfs pull",)),
    Kind("the page of a failed download", raw("rows.json", "<!DOCTYPE html><html>404</html>"),
         refused="is an HTML page and not rows"),
    Kind("CSV without a header", raw("rows.csv", "q0,a0\nq1,a1\nq2,a2\n"), refused="the columns are 'q0', 'a0'",
         said=("write a first line with the columns' names",)),
    Kind(".jsonl.gz", raw("rows.jsonl.gz", gzip.compress(lines(PC))), ANSWER),
    Kind(".jsonl.zst", zstd, ANSWER),
    Kind(".jsonl.bz2", raw("rows.jsonl.bz2", bz2.compress(lines(PC))), ANSWER),
    Kind(".json.xz", raw("rows.json.xz", lzma.compress(json.dumps(PC).encode())), ANSWER),
    Kind("a broken archive", raw("rows.jsonl.gz", gzip.compress(lines(PC))[:-9]), refused="a broken archive"),
    Kind("Parquet", parquet(PC), ANSWER),
    Kind("CSV", raw("rows.csv", table(PC, ",")), ANSWER),
    Kind("CSV with semicolons", raw("rows.csv", table(PC, ";")), ANSWER, ("columns are separated by ';'",)),
    Kind("CSV with tabs", raw("rows.csv", table(PC, "\t")), ANSWER),
    Kind("TSV", raw("rows.tsv", table(PC, "\t")), ANSWER),
    Kind("a text file", raw("rows.txt", "q0\n\nq1\nq2\nq3\n"), "«q0<|end|>»", ("each line is a row",)),
    Kind("a byte order mark", raw("rows.jsonl", b"\xef\xbb\xbf" + lines(PC)), ANSWER),
    Kind("Latin-1", raw("rows.jsonl", lines(PC) + '{"prompt": "é", "completion": "ü"}\n'.encode("latin-1")), ANSWER,
         refused="not UTF-8 text", said=("which is 'é' in Latin-1", "set data.encoding to latin-1")),
    Kind("UTF-16", raw("rows.csv", table(PC, ",").encode("utf-16")), ANSWER, refused="the byte order mark of UTF-16"),
    # --- several files, folders, splits ---
    Kind("a pattern", several(jsonl(PC[:2], "a1.jsonl"), jsonl(PC[2:], "a2.jsonl"), train="a*.jsonl"), ANSWER,
         ("2 files are read",), tools="Axolotl `data_files`"),
    Kind("a pattern with files for validation", several(jsonl(PC, "train.jsonl"), jsonl(made(prompt="v{}",
         completion="a{}"), "validation.jsonl"), train="*.jsonl"), ANSWER,
         ("among them are 'validation.jsonl', whose rows are learned like the others", "2 files are read")),
    Kind("a pattern that matches nothing", several(jsonl(PC), raw("a.csv", "x\n"), train="*.parquet"), ANSWER,
         refused="no file matches"),
    Kind("a pattern that matches nothing in a folder of splits", several(jsonl(PC[:2], "in/train-1.jsonl"),
         jsonl(PC[2:], "in/train-2.jsonl"), jsonl(QA, "in/test.jsonl"), train="**/*.parquet"), ANSWER,
         refused="no file matches"),
    Kind("several files, one by one", lambda folder: [
         jsonl(PC[:2], "b.jsonl")(folder), jsonl(PC[2:], "a.jsonl")(folder)], ANSWER, tools="Axolotl `datasets`"),
    Kind("a folder of shards", several(jsonl(PC[:2], "part-00000.jsonl"), jsonl(PC[2:], "part-00001.jsonl")), ANSWER,
         ("2 files are read",)),
    Kind("a folder as on the hub", several(parquet(PC[:2], "data/train-00000-of-00002.parquet"),
         parquet(PC[2:], "data/train-00001-of-00002.parquet"), parquet(made(prompt="v{}", completion="a{}"),
         "data/validation-00000-of-00001.parquet"), raw("README.md", "rows")), ANSWER,
         ("the validation rows are the split 'validation'",)),
    Kind("a folder with files of several kinds", several(jsonl(PC, "a.jsonl"), parquet(PC, "a.parquet")), ANSWER,
         refused="files of several kinds"),
    Kind("a folder of several kinds with splits", several(jsonl(PC, "train.jsonl"), jsonl(QA, "validation.jsonl"),
         raw("train.csv", "x\n")), ANSWER, refused="files of several kinds"),
    Kind("a folder without rows", several(raw("notes.md", "x")), refused="a folder without files of rows"),
    Kind("a folder that `datasets` wrote", saved(train=PC), ANSWER),
    Kind("a folder with splits", saved(train=PC, validation=made(prompt="v{}", completion="a{}"), test=PC), ANSWER,
         ("the validation rows are the split 'validation'", "splits that are not used: 'test'")),
    Kind("a slice of a split", saved(train=[*PC, *made(prompt="z{}", completion="a{}")],
         test=PC), ANSWER, ("splits that are not used: 'test'",), settings={"split": "train[:50%]"}),
]  # fmt: skip
