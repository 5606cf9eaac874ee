"""What a chat template does not write of the keys of turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data import templates
from trainables.data.findings import Finding
from trainables.data.review import Turns
from trainables.data.tokenizers import load
from trainables.settings import ModelSettings

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}{% if m.mood is defined %} feels{% endif %}>{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ m.channel }}{% endif %}{{ m.get('tone', 'calm') }}{% endfor %}"
)


def unwritten(folder: Path, rows: list[list[dict[str, Any]]]) -> list[Finding]:
    tokenizer, _ = load(ModelSettings(model_name_or_path=str(folder)))
    tokenizer.chat_template = TEMPLATE
    given, turns = [{"messages": row} for row in rows], Turns()
    for index, row in enumerate(given):
        turns.add(row, index)
    return templates.unwritten(tokenizer, turns, given.__getitem__, "row {}".format, "the template")


def turn(role: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": "x", **more}


def test_a_key_that_is_written_or_decides_something_is_not_told(tokenizer_folder: Path) -> None:
    """Also one whose value is the one that the template writes without it."""
    assistant = turn("assistant", channel="final", mood="x", tone="calm", name="n", tool_call_id="i", weight=1)
    assert unwritten(tokenizer_folder, [[turn("user"), assistant]]) == []


def test_a_key_that_is_written_of_some_turns(tokenizer_folder: Path) -> None:
    (found,) = unwritten(
        tokenizer_folder, [[turn("user")], [turn("user", channel="c"), turn("assistant", channel="d")]]
    )
    assert str(found) == "the chat template does not write some 'channel' of turns, which 1 of 2 rows have (row 1: 'c')"


def test_of_many_keys_the_most_frequent_are_told(tokenizer_folder: Path) -> None:
    more = {f"k{i}": [] if i == 3 else i for i in range(12)}
    rows = [[turn("user", last=True)], *([turn("user", **more)] for _ in range(2))]
    found = unwritten(tokenizer_folder, rows)
    assert [one.count for one in found] == [2] * 8 and all(one.total == 3 for one in found)
    assert found[0].text == "the chat template does not write 'k0' of turns, which 2 of 3 rows have"
    assert found[-1].text.endswith("'k8' of turns, which 2 of 3 rows have; nor 'k9', 'k10', 'k11', 'last'")
    assert "'k3'" not in str(found)
