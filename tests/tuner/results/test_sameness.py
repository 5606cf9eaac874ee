from __future__ import annotations

from typing import Any

import pytest

from tuner.contract import InputError
from tuner.results import sameness

BEFORE: dict[str, Any] = {
    "base": {"source": "/models/a", "files": {"config.json": "11", "model.safetensors": "22"}},
    "training rows": {"source": "rows.jsonl", "files": {".jsonl": "33"}},
    "token ids": {"source": "", "files": {"train": "44"}},
    "libraries": {"source": "", "files": {"torch": "2.13.0", "trl": "1.16.0"}},
}


def now(part: str, **files: str | None) -> dict[str, Any]:
    """The fingerprints of before with some replaced; None: removed."""
    named = {name.replace("__", "."): value for name, value in files.items()}
    merged = {k: v for k, v in {**BEFORE[part]["files"], **named}.items() if v is not None}
    return {**BEFORE, part: {**BEFORE[part], "files": merged}}


def judged(after: dict[str, Any], accept: bool = False) -> tuple[str, ...]:
    found = list(sameness.changes(BEFORE, after))
    return sameness.require_same(found, where="runs/first", since="the search began", remedy="-", accept=accept)


def test_the_same_is_the_same() -> None:
    assert judged(BEFORE) == ()


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (now("base", model__safetensors="23"), "the base /models/a changed since the search began"),
        (now("base", model__safetensors="23"), "model.safetensors was 22, is 23"),
        (now("base", extra__safetensors="9"), "extra.safetensors is new"),
        (now("base", config__json=None), "config.json is gone"),
        (now("training rows", __jsonl="34"), "training rows .jsonl was 33, is 34"),
        (now("token ids", train="45"), "the token ids changed"),
    ],
)
def test_a_change_is_refused_and_named(after: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        judged(after)
    assert told in caught.value.what and "cannot be compared" in caught.value.what


def test_accepted_it_is_a_note() -> None:
    (note,) = judged(now("base", model__safetensors="23"), accept=True)
    assert note.startswith("accepted: the base /models/a changed") and "was 22, is 23" in note


def test_libraries_are_a_note_and_are_not_blamed_on_the_rows() -> None:
    (note,) = judged(now("libraries", torch="2.14.0"))
    assert "torch was 2.13.0, is 2.14.0" in note and "rows" not in note


def test_rows_that_other_libraries_tokenize_otherwise() -> None:
    after = {**now("libraries", trl="1.17.0"), "token ids": now("token ids", train="45")["token ids"]}
    with pytest.raises(InputError, match=r"the rows are the same: trl was 1\.16\.0, is 1\.17\.0"):
        judged(after)


def test_another_source_is_what_the_user_asked_for() -> None:
    after = {**BEFORE, "base": {"source": "/models/b", "files": {"config.json": "0"}}}
    assert judged(after) == ()


def test_one_fingerprint_each_sees_the_same_changes() -> None:
    short = sameness.as_parts(sameness.digests(BEFORE))
    assert "libraries" not in short
    assert list(sameness.changes(short, sameness.one_each(BEFORE))) == []
    (change,) = sameness.changes(short, sameness.one_each(now("base", config__json="12")))
    assert change.part == "base" and change.source == "/models/a"


def test_many_files_are_one_fingerprint() -> None:
    files = {f"{n}.arrow": str(n) for n in range(1000)}
    (name,) = sameness.part("rows", files)["files"]
    assert name == "1000 files"
    assert sameness.part("rows", files) != sameness.part("rows", {**files, "7.arrow": "x"})


@pytest.mark.parametrize("facts", [{}, {"made_of": 3}, {"made_of": {"base": []}}, {"made_of": {"base": {"files": 1}}}])
def test_facts_that_anybody_may_have_written(facts: dict[str, Any]) -> None:
    assert sameness.parts(facts) == {}
