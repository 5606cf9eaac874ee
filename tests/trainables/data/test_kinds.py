"""Every kind of file in the table: what is said, what is learned; and following a refusal's `try:` works."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainables.data.kinds import KINDS, Kind
from tests.trainables.data.written_files import SQUAD, jsonl
from trainables import preparing
from trainables.data import store, tokenizers
from trainables.settings import Settings
from tuner.contract import InputError, Preparation

_SET = re.compile(r'set data\.(\w+) to (\{[^}]*\}|"(?:\\.|[^"\\])*"|\S+?)(?=[;,\s]|$)')


def settings_of(kind: Kind, model: Path, folder: Path, train: str | list[str], changes: dict[str, Any]) -> Settings:
    data = {**kind.settings, "train": train, **changes}
    if template := data.get("chat_template"):
        (folder / "chat.jinja").write_text(template)
        data["chat_template"] = str(folder / "chat.jinja")
    return Settings.model_validate({"model": {"model_name_or_path": str(model)}, "data": data})


def decoded(preparation: Preparation, settings: Settings) -> list[str]:
    """All rows, with « and » around what is learned."""
    tokenizer, _ = tokenizers.load(settings.model)
    rows = [row for name in ("train", "validation") for row in store.open_set(preparation, name)]
    return [marked(tokenizer, row) for row in rows]


def marked(tokenizer: Any, row: dict[str, list[int]]) -> str:
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (-100, token)
        if not runs or runs[-1][0] != (label != -100):
            runs.append((label != -100, []))
        runs[-1][1].append(token)
    return "".join(f"«{tokenizer.decode(ids)}»" if learned else tokenizer.decode(ids) for learned, ids in runs)


def advised(remedy: str) -> dict[str, Any]:
    """The settings that a refusal says to set."""
    return {key: yaml.safe_load(value) for key, value in _SET.findall(remedy)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_said_and_what_is_learned(kind: Kind, tokenizer_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    train, changes, told = kind.write(rows), {}, []
    settings = settings_of(kind, tokenizer_folder, tmp_path, train, {})
    if kind.refused:
        with pytest.raises(InputError) as caught:
            preparing.prepare_rows(settings, tmp_path / "cache")
        told.append(str(caught.value))
        assert kind.refused in caught.value.what
        changes = advised(caught.value.remedy)
        if not kind.learned:
            assert not changes.keys() - {"chat_template"}, f"a setting that does not help: {caught.value}"
            assert all(part in told[0] for part in kind.said), told[0]
            return
        assert changes, f"no setting to try: {caught.value}"
        settings = settings_of(kind, tokenizer_folder, tmp_path, train, changes)
    preparation = preparing.prepare_rows(settings, tmp_path / "cache")
    told += preparation.notes
    assert kind.learned in decoded(preparation, settings)
    for part in kind.said:
        assert any(part in note for note in told), told
    if not kind.said and not kind.refused:
        assert told == []


def test_the_file_that_is_to_be_made_of_paragraphs_is_learned(tokenizer_folder: Path, tmp_path: Path) -> None:
    """What the refusal names is made of the very file: a list of objects within another, and columns of both."""
    file = tmp_path / "squad.json"
    file.write_text(json.dumps(SQUAD))
    settings = Settings.model_validate({"model": {"model_name_or_path": str(tokenizer_folder)},
                                        "data": {"train": str(file)}})  # fmt: skip
    with pytest.raises(InputError) as caught:
        preparing.prepare_rows(settings, tmp_path / "cache")
    shape = (r"write a file with a line for each object of (\w+)\[\]\.(\w+)\[\]: "
             r'\{"prompt": (\w+) and (\w+), "completion": (\w+)\[0\]\.(\w+)\}')  # fmt: skip
    said = re.fullmatch(shape, caught.value.remedy)
    assert said is not None, caught.value.remedy
    outer, inner, context, question, answers, text = said.groups()
    rows = [
        {"prompt": f"{paragraph[context]}\n\n{asked[question]}\n\n", "completion": asked[answers][0][text]}
        for row in SQUAD["data"]
        for paragraph in row[outer]
        for asked in paragraph[inner]
    ]
    made = settings.model_copy(update={"data": settings.data.model_copy(update={"train": jsonl(rows)(tmp_path)})})
    preparation = preparing.prepare_rows(made, tmp_path / "cache")
    found = decoded(preparation, made)
    assert len(found) == 8 and {"c0\n\nq0\n\n«a0<|end|>»", "c3\n\nr3\n\n«b3<|end|>»"} <= {*found}


def test_there_are_enough() -> None:
    assert len(KINDS) >= 50
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_page_for_users_of_other_tools_is_the_table() -> None:
    """scripts/make_coming_from.py writes it anew."""
    root = Path(__file__).parents[3]
    found = runpy.run_path(str(root / "scripts" / "make_coming_from.py"))["written"]()
    assert (root / "docs" / "coming-from.md").read_text("utf-8") == found
