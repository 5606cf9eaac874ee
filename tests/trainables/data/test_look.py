"""What `tuner data` counts: against a count by hand, and of a sample against all."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.programs import looked
from trainables.data import look, sampling, showing
from trainables.data.measuring import Measures
from trainables.settings import Settings
from tuner.contract import Look, LookRequest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return looked.folder_of_files(tmp_path_factory.mktemp("looked"))


def at(place: Path, file: str, request: LookRequest | None = None, **data: Any) -> Look:
    given = {"model": {"model_name_or_path": str(place / "base")}, "data": {"train": str(place / file), **data}}
    found = look.look(Settings.model_validate(given), request or LookRequest())
    assert found is not None
    return found


def test_every_candidate_is_counted_as_it_would_be_cut() -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(400):
        length = draw.randint(1, 300)
        rows.append((length, sorted(draw.sample(range(length), draw.randint(0, length)))))
    measures = Measures(limit=100)
    for length, targets in rows:
        measures.add(length, targets)
    found = {one.length: one for one in measures.at()}
    assert set(found) == {32, 64, 100, 128, 256, 512}
    for most, one in found.items():
        kept = [[t for t in targets if t < most] for _, targets in rows]
        assert one.cut == sum(length > most for length, _ in rows)
        assert one.left_out == sum(not targets for targets in kept)
        learned = [sum(t > 0 for t in targets) for _, targets in rows]
        assert one.lost == sum(learned) - sum(sum(t > 0 for t in targets) for targets in kept)
    assert measures.learned == sum(sum(t > 0 for t in targets) for _, targets in rows)
    assert sum(one.rows for one in measures.histogram()) == 400
    lengths = sorted(length for length, _ in rows)
    assert measures.quantiles()["longest"] == lengths[-1] and measures.quantiles()["median"] == lengths[200]


@pytest.mark.parametrize("lengths", [[7] * 50, [10] * 99 + [5000], list(range(1, 60)), [1] * 8])
def test_the_histogram_has_every_row_once(lengths: list[int]) -> None:
    measures = Measures(1024)
    for length in lengths:
        measures.add(length, [length - 1])
    bins = measures.histogram()
    assert len(bins) <= 12 and sum(one.rows for one in bins) == len(lengths)
    for one in bins:
        assert one.rows == sum(one.low <= length <= (one.high or 10**9) for length in lengths)


def test_pieces_are_the_row_and_nothing_else(place: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(place / "base")
    text = "reverse: the cat sat =>  sat cat the, na\u00efve \u05e9\u05dc\u05d5\u05dd \U0001f600 end" * 3
    ids = tokenizer(text)["input_ids"]
    draw = random.Random(1)
    labels = [token if draw.random() < 0.5 else -100 for token in ids]
    whole = showing.pieces(ids, [-100] * len(ids), tokenizer, 1000, 1000)
    assert [piece.text for piece in whole] == [text]
    parts = showing.pieces(ids, labels, tokenizer, 40, 1000)
    clean = [piece for piece in parts if "\ufffd" not in piece.text]
    assert all(piece.text in text for piece in clean) and len(clean) > 20
    assert [piece.beyond for piece in parts] == sorted(piece.beyond for piece in parts)
    (short,) = showing.pieces(ids, [-100] * len(ids), tokenizer, 1000, 10)
    assert short.hidden == len(ids) - 10 and text.startswith(short.text) and text.endswith(short.tail.lstrip("\ufffd"))


def test_a_large_file_is_sampled_with_the_numbers_of_its_lines(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines count as lines; the total is that of the file; the share of cut rows is near that of all rows."""
    draw = random.Random(0)
    lines = []
    for number in range(1, 6001):
        words = " the cat" * draw.randint(1, 40)
        lines.append("" if number % 10 == 0 else json.dumps({"prompt": f"{number}", "completion": words}))
    (place / "large.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sampling, "ROWS", 400)
    exact = at(place, "large.jsonl", LookRequest(whole=True), max_length=48)
    monkeypatch.setattr(sampling, "LARGE", 1000)
    found = at(place, "large.jsonl", LookRequest(show=5), max_length=48)
    (train,) = found.sets
    assert train.rows == 5400 and train.looked == 400 and "400 of 5,400 rows" in train.sampled
    for row in train.shown:
        assert row.place == f"line {row.pieces[0].text}"
    everything = exact.sets[0]
    assert not everything.sampled and everything.looked == everything.rows == 4860
    share = next(one.cut for one in train.at if one.length == 48) / train.looked
    real = next(one.cut for one in everything.at if one.length == 48) / everything.looked
    assert abs(share - real) < 0.08
    wanted = at(place, "large.jsonl", LookRequest(row=4321), max_length=48)
    assert [row.place for row in wanted.sets[0].shown] == ["line 4321"]


def test_a_faulty_line_of_a_sample_is_named_in_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.contract import InputError

    monkeypatch.setattr(sampling, "LARGE", 10)
    (place / "torn.jsonl").write_text('{"text": "a"}\n\n{"text": \n')
    with pytest.raises(InputError) as raised:
        at(place, "torn.jsonl")
    assert raised.value.where == f"{place / 'torn.jsonl'}:3"


def test_rows_that_are_not_drawn_are_counted(place: Path) -> None:
    found = at(place, "completions.jsonl", max_train_rows=10)
    (left,) = [one for one in found.sets[0].findings if one.kind == "left out"]
    assert found.sets[0].rows == 10 and left.count == 28 and "data.max_train_rows" in left.what


def test_nothing_to_learn_in_any_row_is_refused(place: Path) -> None:
    found = at(place, "completions.jsonl", max_length=2)
    assert found.refusal is not None and "none of the 38 train rows" in found.refusal["what"]
    assert "data.max_length" in found.refusal["remedy"]


def test_unknown_tokens_are_counted_where_there_is_one(place: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "the": 2, "cat": 3}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(["</s>"])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="</s>", pad_token="</s>")
    made.save_pretrained(place / "words")
    (place / "words" / "config.json").write_text('{"model_type": "llama"}')
    (place / "known.jsonl").write_text('{"text": "the cat"}\n{"text": "the dog sat"}\n{"text": "cat"}\n' * 4)
    settings = {"model": {"model_name_or_path": str(place / "words")}, "data": {"train": str(place / "known.jsonl")}}
    found = look.look(Settings.model_validate(settings), LookRequest(whole=True))
    assert found is not None
    dogs = [row for row in range(1, 13) if row % 3 == 2]
    assert sum(one.unknown or 0 for one in found.sets) == 2 * len(dogs)
    told = [f for one in found.sets for f in one.findings if "does not know" in f.what]
    assert sum(one.count for one in told) == len(dogs) and told[0].examples[0] in {f"line {row}" for row in dogs}
    assert all(one.unknown is None for one in at(place, "texts.jsonl").sets), "bytes: every text can be written"


def test_only_here_looks_at_nothing_that_is_elsewhere(place: Path) -> None:
    settings = {"model": {"model_name_or_path": "org/model"}, "data": {"train": str(place / "texts.jsonl")}}
    assert look.look(Settings.model_validate(settings), LookRequest(only_here=True)) is None


def test_a_tokenizer_in_the_hubs_cache_counts_as_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from its folder: the hub is not asked, and no weights are fetched."""
    from trainables.hub import client

    cache, commit = place / "cache", "a" * 40
    snapshot = cache / "models--org--chat" / "snapshots" / commit
    shutil.copytree(place / "base", snapshot)
    (cache / "models--org--chat" / "refs").mkdir()
    (cache / "models--org--chat" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(client, "why_unreachable", lambda: pytest.fail("the hub was asked"))
    settings = {"model": {"model_name_or_path": "org/chat"}, "data": {"train": str(place / "messages.jsonl")}}
    found = look.look(Settings.model_validate(settings), LookRequest(only_here=True))
    assert found is not None and sum(one.rows for one in found.sets) == 24 and found.refusal is None
