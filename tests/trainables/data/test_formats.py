from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import chat_completion_rows, completion_rows, message_rows, text_rows
from trainables.data import formats, shaping
from trainables.data.rows import Part, Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

DATA = DataSettings(train="rows.jsonl")


def clean(rows: list[dict[str, Any]], data: DataSettings = DATA) -> list[dict[str, Any]]:
    part = Part("rows.jsonl", len(rows), range(1, len(rows) + 1))
    given = Rows("rows.jsonl", rows, (part,))
    return shaping.normalize(given, formats.detect(given, data), data)


@pytest.mark.parametrize(
    ("rows", "name", "conversational"),
    [
        (text_rows(2), "text", False),
        (completion_rows(2), "prompt-completion", False),
        (chat_completion_rows(2), "prompt-completion", True),
        (message_rows(2), "messages", True),
        ([{"conversations": message_rows(1)[0]["messages"]}], "messages", True),
    ],
)
def test_detected_by_the_columns(rows: list[dict[str, Any]], name: str, conversational: bool) -> None:
    assert formats.detect(Rows("x", rows), DATA) == formats.Format(name, conversational)


def test_the_named_format_wins() -> None:
    rows = [{**completion_rows(1)[0], "text": "t"}]
    assert formats.detect(Rows("x", rows), DATA).name == "prompt-completion"
    assert formats.detect(Rows("x", rows), DataSettings(train="x", format="text")).name == "text"


def test_other_columns_and_arrow_fillings_go() -> None:
    turn = {"role": "user", "content": "a", "name": None}
    assert clean([{"messages": [turn], "id": 7, "tools": None}]) == [{"messages": [{"role": "user", "content": "a"}]}]


def test_from_value_turns_become_role_content() -> None:
    rows = clean([{"conversations": [{"from": "user", "value": "a"}]}])
    assert rows == [{"messages": [{"role": "user", "content": "a"}]}]


@pytest.mark.parametrize(
    ("rows", "remedy"),
    [
        ([{"question": "a", "answer": "b"}], "set data.columns to {prompt: question, completion: answer}"),
        ([{"prompt": "a", "completions": "b"}], "set data.columns to {prompt: prompt, completion: completions}"),
        ([{"message": [{"role": "user", "content": "a"}]}], "set data.columns to {messages: message}"),
        ([{"content": "a"}], "set data.text_field to content if it holds the text"),
        ([{"zzz": "a"}], "set data.text_field to zzz if it holds the text"),
        ([{"my question": "a", "yes": "b", "output": "c"}], 'set data.columns to {prompt: "my question", completion: '
                                                            "output} ('yes' is then not read)"),
        ([{"n": []}], ""),
    ],
)  # fmt: skip
def test_columns_of_other_names_are_told_with_a_mapping(rows: list[dict[str, Any]], remedy: str) -> None:
    with pytest.raises(InputError, match="the columns are") as caught:
        clean(rows)
    assert caught.value.remedy == remedy
    assert "'messages' or 'prompt' and 'completion' or 'text'" in caught.value.expected


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"text": "a"}, {"txt": "b"}], "no 'text': the row has 'txt'"),
        ([{"text": "a"}, {"text": None}], "'text' is empty"),
        ([{"text": "a"}, {"text": [3]}], r"'text' is \[3\]"),
        ([*message_rows(1), {"messages": []}], "'messages' is empty"),
        ([*message_rows(1), {"messages": ["hi"]}], "a message that is 'hi'"),
        ([*message_rows(1), {"messages": [{"role": "user"}]}], "a message with 'role'"),
        ([*chat_completion_rows(1), {"prompt": "a", "completion": "b"}], "'prompt' is 'a'"),
        ([{"text": "a"}, {"text": "b\ud83d"}], r"half a character: \\ud83d stands alone"),
        ([*completion_rows(1), {"prompt": "a", "completion": "\udc00"}], "half a character"),
        ([*message_rows(1), {"messages": [{"role": "user", "content": [{"text": "\ud800"}]}]}], "half a character"),
    ],
)
def test_a_row_that_breaks_the_format_is_named(rows: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        clean(rows)
    assert caught.value.where == "rows.jsonl:2"
