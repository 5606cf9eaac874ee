from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import chat_completion_rows, completion_rows, message_rows, text_rows
from trainables.data import formats
from trainables.data.reading import Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

DATA = DataSettings(train="rows.jsonl")


def clean(rows: list[dict[str, Any]], data: DataSettings = DATA) -> list[dict[str, Any]]:
    given = Rows("rows.jsonl", rows, range(1, len(rows) + 1), by_line=True)
    return formats.normalize(given, formats.detect(given, data), data)


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
        ([{"instruction": "a", "output": "b"}], "rename 'instruction' to 'prompt'; rename 'output' to 'completion'"),
        ([{"prompt": "a", "completions": "b"}], "rename 'completions' to 'completion'"),
        ([{"message": []}], "rename 'message' to 'messages'"),
        ([{"content": "a"}], "rename 'content' to 'text'"),
        ([{"zzz": "a"}], "set data.text_field to 'zzz' if it holds the text"),
    ],
)
def test_misnamed_columns_are_told_with_the_nearest(rows: list[dict[str, Any]], remedy: str) -> None:
    with pytest.raises(InputError, match="the columns are") as caught:
        clean(rows)
    assert caught.value.remedy == remedy
    assert "'messages' or 'prompt' and 'completion' or 'text'" in caught.value.expected


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"text": "a"}, {"txt": "b"}], "no 'text': the row has 'txt'"),
        ([{"text": "a"}, {"text": None}], "'text' is empty"),
        ([{"text": "a"}, {"text": 3}], "'text' is 3"),
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
