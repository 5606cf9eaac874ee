"""Files that are large, wide, long or growing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import completion_rows, write_jsonl
from trainables import preparing
from trainables.data import look, reading, store, tokenizing
from trainables.settings import DataSettings, Settings
from tuner.contract import InputError, LookRequest, Preparation


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that knows three words and is fast: whatever else stands between two spaces is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("words")
    known = {word: i for i, word in enumerate(["<unk>", "<end>", "the", "cat", "sat"])}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} <end> {% endfor %}"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 5}))
    return folder


def settings(model: Path, train: Path | str, **data: Any) -> Settings:
    return Settings.model_validate({"model": {"model_name_or_path": str(model)}, "data": {"train": str(train), **data}})


def prepared(model: Path, train: Path, cache: Path, **data: Any) -> Preparation:
    return preparing.prepare_rows(settings(model, train, **data), cache)


def test_a_batch_is_bounded_in_rows_and_in_characters() -> None:
    rows = [{"text": "x" * size} for size in [10] * 2500 + [3_000_000] * 2 + [700_000] * 4]
    batches = list(tokenizing._batches(iter(rows)))
    assert [row for some in batches for row in some] == rows
    assert [len(some) for some in batches] == [1000, 1000, 501, 1, 3, 1]


@pytest.mark.slow  # a tokenizer takes 10 s of a core for such a row
def test_rows_of_ten_megabytes(words: Path, tmp_path: Path) -> None:
    """One is cut like any other row, and those beside it are what they were."""
    rows = [{"text": "the cat"}] * 4 + [{"text": f"the {'x' * 10_000_000} sat{' sat' * 20}"}]
    file = write_jsonl(tmp_path / "long.jsonl", rows)
    made = prepared(words, file, tmp_path / "cache", validation_fraction=0.2, max_length=10)
    found = [row for name in ("train", "validation") for row in store.open_set(made, name)["input_ids"]]
    # The end token is a special one, which is found wherever it stands
    assert sorted(found) == sorted([[2, 3, 1]] * 4 + [[2, 0, 4, 4, 4, 4, 4, 4, 4, 4]])
    assert any("1 of" in note and "longer than max_length=10" in note for note in made.notes)
    assert all(len(note) < 500 for note in made.notes)


def test_a_hundred_thousand_columns(words: Path, tmp_path: Path) -> None:
    more = {f"column {i}": i for i in range(100_000)}
    file = write_jsonl(tmp_path / "wide.jsonl", [{"prompt": "the", "completion": word, **more} for word in "ab"])
    began = time.process_time()
    made = prepared(words, file, tmp_path / "cache")
    assert made.facts["train"]["rows"] + made.facts["validation"]["rows"] == 2
    (told,) = (note for note in made.notes if "columns that are not used" in note)
    assert "and 99,988 more" in told and len(told) < 600
    looked = look.look(settings(words, file), LookRequest())
    assert looked is not None and "99,992 more columns" in str(looked.sets[0].findings)
    file = write_jsonl(tmp_path / "unknown.jsonl", [more])
    with pytest.raises(InputError, match="and 99,988 more") as refused:
        prepared(words, file, tmp_path / "cache")
    assert len(str(refused.value)) < 1500
    assert time.process_time() - began < 30


def test_a_file_that_grows_while_it_is_read(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused however often one tries, and read once it is complete, as the message says."""
    file = tmp_path / "growing.jsonl"
    line = json.dumps({"prompt": "the", "completion": "cat " * 50}).encode() + b"\n"
    file.write_bytes(line * 1000)
    ended, whole = threading.Event(), Path.read_bytes

    def write() -> None:
        with file.open("ab", buffering=0) as out:
            while not ended.wait(0.001):
                out.write(line)

    def read(path: Path) -> bytes:
        """The bytes of a file. It takes until the writer, which may have to wait for a core, has written once more."""
        size, found = path.stat().st_size, whole(path)
        while not ended.is_set() and path.stat().st_size == size:
            time.sleep(0.001)
        return found

    monkeypatch.setattr(Path, "read_bytes", read)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            with pytest.raises(InputError, match=r"changes while it is read: [0-9,]+ bytes, then") as refused:
                reading.read(str(file), DataSettings(train=str(file)))
            assert refused.value.remedy.startswith("wait until it is complete")
    finally:
        ended.set()
        writer.join()
    size = file.stat().st_size
    assert len(reading.read(str(file), DataSettings(train=str(file)))) == size // len(line)


def test_a_folder_whose_files_change_between_two_looks(words: Path, tmp_path: Path) -> None:
    """The rows would be kept under the fingerprint of others."""
    rows = tmp_path / "rows"
    rows.mkdir()
    write_jsonl(rows / "a.jsonl", completion_rows(4))
    told = []

    def write(text: str) -> None:  # the first thing that is told is that the rows are read now
        told.append(text)
        if len(told) == 1:
            write_jsonl(rows / "b.jsonl", completion_rows(4))

    with pytest.raises(InputError, match="have changed while they were read"):
        preparing.prepare_rows(settings(words, rows), tmp_path / "cache", tell=write)
    assert told == ["reading the rows"]
    made = preparing.prepare_rows(settings(words, rows), tmp_path / "cache", tell=told.append)
    assert made.facts["train"]["rows"] + made.facts["validation"]["rows"] == 8
    assert [text for text in told if text.startswith("tokenizing the train rows: ")]
    assert "looking at the train rows: 0 of 8" in told


def test_the_same_file_for_training_and_validation(words: Path, tmp_path: Path) -> None:
    """By whatever name; what the message says to do works."""
    file = write_jsonl(tmp_path / "rows.jsonl", completion_rows(20))
    (tmp_path / "link.jsonl").symlink_to(file)
    (tmp_path / "in").mkdir()
    for other in (file, tmp_path / "link.jsonl", tmp_path / "in" / ".." / "rows.jsonl"):
        given = settings(words, file, validation=str(other))
        for call in (lambda g=given: preparing.prepare_rows(g, tmp_path), lambda g=given: look.look(g, LookRequest())):
            with pytest.raises(InputError, match="the validation rows are the training rows") as refused:
                call()
            assert re.match("set data.validation to null; then 10% of the rows are split off", refused.value.remedy)
    made = prepared(words, file, tmp_path / "cache", validation=None)
    assert (made.facts["train"]["rows"], made.facts["validation"]["rows"]) == (18, 2)


@pytest.mark.parametrize(
    ("shared", "of", "told"),
    [
        (1, 3, "1 of 3 validation rows is a training row too"),
        (2, 3, "2 of 3 validation rows are training rows too"),
        (3, 3, "all 3 validation rows are training rows too"),
        (1, 1, "the only validation row is a training row too"),
        (0, 3, ""),
    ],
)
def test_rows_that_both_have_are_counted(words: Path, tmp_path: Path, shared: int, of: int, told: str) -> None:
    rows = [{"prompt": f"the {i}", "completion": "cat"} for i in range(10)]
    train = write_jsonl(tmp_path / "train.jsonl", rows[:6])
    held = write_jsonl(tmp_path / "held.jsonl", [*rows[6 : 6 + of - shared], *rows[:shared]])
    made = prepared(words, train, tmp_path / "cache", validation=str(held))
    notes = [note for note in made.notes if "validation row" in note]
    looked = look.look(settings(words, train, validation=str(held)), LookRequest())
    assert looked is not None
    if not told:
        assert notes == [] and looked.findings == ()
        return
    assert notes[0].startswith(told) and f"held.jsonl:{of - shared + 1})" in notes[0]
    assert (looked.findings[0].count, looked.findings[0].what) == (shared, "that validation shares with training")


_PEAK = """
import json, re, sys
from pathlib import Path
from trainables import imports, preparing, quiet
from trainables.data import look
from trainables.settings import Settings
from tuner.contract import LookRequest
given, told = Settings.model_validate_json(sys.argv[2]), []
if sys.argv[1] == "look":
    found = look.look(given, LookRequest(whole=True, tell=told.append))
    rows = sum(one.looked for one in found.sets)
else:
    facts = preparing.prepare_rows(given, Path(sys.argv[3]), tell=told.append).facts
    rows = facts["train"]["rows"] + facts["validation"]["rows"]
# Not ru_maxrss: a process inherits that of the one that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([rows, peak, told]))
"""


@pytest.mark.slow  # a tokenizer takes three minutes of a core for so much
@pytest.mark.parametrize(("way", "kind"), [("prepare", "prompt-completion"), ("look", "messages")])
def test_two_hundred_megabytes(words: Path, tmp_path: Path, kind: str, way: str) -> None:
    """In less than 1.5 GB, with a count of all rows."""
    text, answer = " ".join(["the cat sat"] * 20), " ".join(["cat"] * 60)
    file, number = tmp_path / "rows.jsonl", 0
    with file.open("w") as out:
        while out.tell() < 200_000_000:
            row: dict[str, Any] = {"prompt": f"{number} {text}", "completion": answer}
            if kind == "messages":
                row = {"messages": [{"role": "user", "content": f"{number} {text}"},
                                    {"role": "assistant", "content": answer}]}  # fmt: skip
            out.write(json.dumps(row) + "\n")
            number += 1
    given = settings(words, file).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, way, given, str(tmp_path / "cache")], capture_output=True, text=True, check=True
    )
    rows, peak, told = json.loads(done.stdout.splitlines()[-1])
    assert rows == number and peak < 1.5e9, f"{peak / 1e6:.0f} MB"
    assert len(set(told)) > 20 and re.fullmatch(r"tokenizing the \w+ rows: [\d,]+ of [\d,]+", told[-1])
    print(f"{way} {kind}: {number:,} rows, {peak / 1e6:.0f} MB")
