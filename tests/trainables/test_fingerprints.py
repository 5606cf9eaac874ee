"""What a trial is made of is fingerprinted by its content, by samples where it is large."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import completion_rows, write_jsonl
from trainables import fingerprints, runtime
from trainables.data import store
from trainables.models import samples
from trainables.settings import Settings
from trainables.sft import SFT
from tuner.contract import Fault

Make = Callable[..., dict[str, Any]]


def checkpoint(file: Path, **sizes: int) -> Path:
    """Makes a sparse safetensors file, with so many bytes in each tensor."""
    said, end = {}, 0
    for name, size in sizes.items():
        said[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(said).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return file


def poke(file: Path, at: int, byte: bytes = b"x") -> None:
    """Overwrites bytes of a file from offset `at` on; a negative one counts from the end."""
    with file.open("r+b") as stream:
        stream.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        stream.write(byte)


def copied(settings: Make, tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """Settings with copies of base and rows in `tmp_path`."""
    shutil.copytree(tiny_model, tmp_path / "base")
    write_jsonl(tmp_path / "rows.jsonl", completion_rows(40))
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    return settings(
        model={"model_name_or_path": str(tmp_path / "base")},
        data={"train": str(tmp_path / "rows.jsonl"), "chat_template": str(tmp_path / "chat.jinja")},
    )


def parts(settings: dict[str, Any]) -> dict[str, Any]:
    made = Settings.model_validate(settings)
    return {**fingerprints.of_model(made), **fingerprints.of_rows(made)}


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("base/model.safetensors", "base"),
        ("base/config.json", "base"),
        ("base/generation_config.json", "base"),
        ("base/tokenizer.json", "tokenizer"),
        ("base/chat_template.jinja", "tokenizer"),
        ("chat.jinja", "chat template"),
        ("rows.jsonl", "training rows"),
    ],
)
def test_a_change_of_each_is_seen(sft_settings: Make, tiny_model: Path, tmp_path: Path, file: str, part: str) -> None:
    settings = copied(sft_settings, tmp_path, tiny_model)
    before = parts(settings)
    place = tmp_path / file
    poke(place, -3, b"\x7f") if place.suffix == ".safetensors" else place.write_text(place.read_text() + " ")
    after = parts(settings)
    assert part in [name for name in before if before[name] != after[name]]
    assert before[part]["source"] == after[part]["source"]


def test_what_is_touched_or_copied_is_the_same(sft_settings: Make, tiny_model: Path, tmp_path: Path) -> None:
    settings = copied(sft_settings, tmp_path, tiny_model)
    before, folder = parts(settings), store.fingerprint(Settings.model_validate(settings))
    for file in tmp_path.rglob("*"):
        os.utime(file, (1, 1))
    assert parts(settings) == before
    shutil.copy(tmp_path / "rows.jsonl", tmp_path / "again.jsonl")
    settings["data"]["train"] = str(tmp_path / "again.jsonl")
    assert parts(settings)["training rows"]["files"] == before["training rows"]["files"]
    assert store.fingerprint(Settings.model_validate(settings)) == folder


def test_a_large_file_of_rows_counts_by_content_too(tmp_path: Path, sft_settings: Make) -> None:
    """Beyond 256 MB it was its time that counted. Sparse: nothing of it is on the disk."""
    file = tmp_path / "rows.jsonl"
    with file.open("wb") as stream:
        stream.truncate(300 << 20)
    settings = Settings.model_validate(sft_settings(data={"train": str(file)}))
    before = store.fingerprint(settings)
    os.utime(file, (1, 1))
    assert store.fingerprint(settings) == before
    poke(file, 150 << 20)
    assert store.fingerprint(settings) != before


def test_a_large_checkpoint_is_sampled_so_that_every_tensor_counts(tmp_path: Path) -> None:
    sizes = {"embed": 200 << 20, "norm": 8192, "layer": 100 << 20, "bias": 64 << 10}
    file = checkpoint(tmp_path / "model.safetensors", **sizes)
    before = samples.of_weights(file)
    assert samples.of_weights(Path(shutil.copy(file, tmp_path / "copy.safetensors"))) == before
    begin = file.stat().st_size - sum(sizes.values())
    for size in sizes.values():
        for at in (begin, begin + size - 1, *([begin + size // 2] if size <= 64 << 10 else [])):
            poke(file, at)
            assert samples.of_weights(file) != before, at
            poke(file, at, b"\0")
        begin += size
    assert samples.of_weights(file) == before


def test_between_samples_only_the_whole_is_seen(tmp_path: Path) -> None:
    """What is not promised."""
    file = checkpoint(tmp_path / "model.safetensors", layer=300 << 20)
    sampled, whole = samples.of_weights(file), samples.of_weights(file, every_byte=True)
    poke(file, 20 << 20)
    assert samples.of_weights(file) == sampled
    assert samples.of_weights(file, every_byte=True) != whole


def test_a_worker_refuses_another_base_than_was_prepared_with(
    sft_settings: Make, tiny_model: Path, tmp_path: Path
) -> None:
    """Changed while the search runs, or another one under the same path on another node."""
    settings = copied(sft_settings, tmp_path, tiny_model)
    preparation = SFT.prepare(settings, tmp_path / "cache")
    typed = Settings.model_validate(settings)
    runtime.load_base(typed, preparation)
    poke(tmp_path / "base" / "model.safetensors", -3, b"\x3f")
    with pytest.raises(Fault, match=r"not the one that the search began with: model\.safetensors changed") as caught:
        runtime.load_base(typed, preparation)
    assert caught.value.reason.halts_search


def test_what_was_found_of_a_base_is_kept_for_a_resume(
    sft_settings: Make, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.models import inspecting

    settings = copied(sft_settings, tmp_path, tiny_model)
    first = SFT.prepare(settings, tmp_path / "cache")
    looked: list[int] = []
    monkeypatch.setattr(inspecting, "inspect", lambda *_: looked.append(1) or inspecting.Inspected(("looked",)))
    assert SFT.prepare(settings, tmp_path / "cache") == first and not looked
    poke(tmp_path / "base" / "model.safetensors", -3, b"\x3f")
    assert SFT.prepare(settings, tmp_path / "cache").notes == ("looked",)
