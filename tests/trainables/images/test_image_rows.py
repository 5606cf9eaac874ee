"""Rows with images before a search: what is kept, what is refused, and by which row."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tests.trainables.images.conftest import Bench
from tests.trainables.images.image_bases import picture
from trainables.data import image_parts, store
from trainables.sft import SFT
from tuner.contract import Fault, InputError, LookRequest, Preparation
from tuner.report.data_page import page

pytestmark = pytest.mark.usefixtures("one_thread")

Benches = Callable[[str], Bench]


@pytest.fixture
def bench(benches: Benches) -> Bench:
    return benches("qwen2_5_vl")


def png(**options: Any) -> bytes:
    stream = BytesIO()
    picture(**options).save(stream, "PNG")
    return stream.getvalue()


def prepared(bench: Bench, rows: list[dict[str, Any]], **data: Any) -> Preparation:
    """Prepares rows that lie beside the bench's pictures."""
    place = write_jsonl(bench.folder / "own.jsonl", rows)
    more = {"train": str(place), "validation": str(bench.folder / "validation.jsonl"), **data}
    return bench.prepared(data=more)[1]


def test_what_is_stored_is_what_trl_collates(bench: Bench) -> None:
    """Ids and labels are the model's own, with a token for every place of an image."""
    settings, preparation = bench.prepared()
    found = preparation.facts["images"]
    assert (found["images"], found["rows_without"], found["max_pixels"]) == (32, 0, 262144)
    assert (found["processor"], found["format"], found["most_tokens"]) == ("Qwen2_5_VLProcessor", "messages", 12)
    from trainables import runtime

    inputs = runtime.open_inputs(runtime.validated(settings), preparation)
    stored = store.open_set(preparation, "train")
    batch = inputs.collator([inputs.train[index] for index in range(4)])
    for index in range(4):
        size = len(stored[index]["input_ids"])
        assert batch["input_ids"][index, :size].tolist() == stored[index]["input_ids"]
        assert batch["labels"][index, :size].tolist() == stored[index]["labels"]
        assert batch["attention_mask"][index].sum() == size
    image = inputs.processor.image_token_id
    assert preparation.facts["train"]["image_tokens"] == sum(row["input_ids"].count(image) for row in stored)
    assert inputs.train[0]["images"][0].size == (16, 24) and inputs.train[0]["messages"][1]["content"] == "red"


def test_rows_as_datasets_writes_them(bench: Bench, tmp_path: Path) -> None:
    """Bytes and paths in Parquet and in a saved folder are the rows that JSON names by path."""
    import datasets

    rows = bench.rows("train")
    known = prepared(bench, rows)
    made = datasets.Dataset.from_list([
        {"messages": image_parts.in_parts(row)["messages"],  # Arrow has one type of content
         "images": [{"bytes": (bench.folder / place).read_bytes(), "path": None} for place in row["images"]]}
        for row in rows
    ]).cast_column("images", datasets.List(datasets.Image()))  # fmt: skip
    made.to_parquet(tmp_path / "rows.parquet")
    made.save_to_disk(tmp_path / "saved")
    for place in ("rows.parquet", "saved"):
        other = prepared(bench, rows, train=str(tmp_path / place))
        assert ids(other) == ids(known)


def ids(preparation: Preparation) -> list[list[int]]:
    return [row["input_ids"] for row in store.open_set(preparation, "train")]


def broken(bench: Bench, **changes: Any) -> list[dict[str, Any]]:
    """The bench's rows, the sixth of which is changed."""
    rows = bench.rows("train")
    rows[5] = {**rows[5], **changes}
    return rows


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"images": ["pictures/none.png"]}, "the image pictures/none.png is not in "),
        ({"images": ["../../a.png"]}, "the image ../../a.png lies outside of "),
        ({"images": ["train.jsonl"]}, "the image train.jsonl cannot be read (cannot identify image file)"),
        ({"images": ["pictures/1.png", "pictures/2.png"]}, "2 images and 1 place for images"),
        ({"images": []}, "0 images and 1 place for images"),
        ({"images": ["https://example.com/a.png"]}, "an image that is a URL, which is not fetched"),
        ({"images": ["line.png"]}, "chat template or processor do not take this row (ValueError: absolute aspect"),
        ({"messages": [{"role": "critic", "content": "a"}, {"role": "assistant", "content": "b"}], "images": []},
         "chat template or processor do not take this row (ValueError: Invalid role in message: critic"),
        ({"messages": [{"role": "user", "content": "the <|image_pad|>"}, {"role": "assistant", "content": "b"}],
          "images": []}, "chat template or processor do not take this row (ValueError: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_row_is_refused_by_its_line_or_left_out(bench: Bench, changes: dict[str, Any], what: str) -> None:
    from PIL import Image

    Image.new("RGB", (4000, 8)).save(bench.folder / "line.png")
    with pytest.raises(InputError) as caught:
        prepared(bench, broken(bench, **changes))
    assert caught.value.what.startswith(what) and caught.value.where == f"{bench.folder}/own.jsonl:6"
    assert "set data.on_bad_row to drop" in caught.value.remedy
    preparation = prepared(bench, broken(bench, **changes), on_bad_row="drop")
    assert preparation.facts["train"]["rows"] == 23
    assert any("1 of 24 rows are malformed and are left out: " in note and "own.jsonl:6" in note
               for note in preparation.notes)  # fmt: skip


def test_a_share_of_the_rows_is_left_out_and_no_more(bench: Bench) -> None:
    rows = bench.rows("train")
    for index in (3, 8):
        rows[index]["images"] = [f"pictures/none{index}.png"]
    with pytest.raises(InputError, match="2 of 24 rows cannot be used because of their images") as caught:
        prepared(bench, rows, on_bad_row="drop")
    assert caught.value.where.endswith("own.jsonl:4") and "at most 5%" in caught.value.expected
    preparation = prepared(bench, rows, on_bad_row="drop", max_bad_images=0.1)
    (told,) = [note for note in preparation.notes if "left out" in note]
    assert "own.jsonl:4" in told and "own.jsonl:9" in told


def test_max_length_cuts_no_image(bench: Bench) -> None:
    rows = broken(bench, images=["big.png"])
    picture((64, 64)).save(bench.folder / "big.png")
    with pytest.raises(InputError, match=r"its images reach beyond data\.max_length=40") as caught:
        prepared(bench, rows, max_length=40)
    assert caught.value.where.endswith("own.jsonl:6") and "lower data.max_pixels" in caught.value.expected
    preparation = prepared(bench, rows, max_length=40, max_pixels=1024)
    assert preparation.facts["images"]["most_tokens"] == 16
    assert any("1 images are made smaller, to data.max_pixels=1024" in note for note in preparation.notes)
    assert preparation.facts["train"]["truncated_rows"] > 0, "texts are cut as ever"


def test_rows_of_text_among_them(bench: Bench) -> None:
    words = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    preparation = prepared(bench, broken(bench, messages=words, images=[]))
    assert preparation.facts["images"]["rows_without"] == 1 and preparation.facts["train"]["rows"] == 24


def test_a_base_of_text_takes_no_images(bench: Bench, tiny_model: Path) -> None:
    settings = {**bench.settings, "model": {"model_name_or_path": str(tiny_model)}}
    with pytest.raises(InputError, match=r"rows with images, and the base \(llama\) takes text alone") as caught:
        SFT.prepare(settings, bench.folder / "cache")
    assert "set data.columns to {images: null}" in caught.value.remedy


def test_a_base_without_its_processor_and_with_another(bench: Bench, benches: Benches, tmp_path: Path) -> None:
    import shutil

    base = shutil.copytree(bench.folder / "base", tmp_path / "base")
    settings = {**bench.settings, "model": {"model_name_or_path": str(base)}}
    other = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**other, "image_token_id": 5}))
    with pytest.raises(InputError, match=r"the processor \(Qwen2_5_VLProcessor\) marks images with token 7, the base"):
        SFT.prepare(settings, tmp_path / "cache")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (base / name).unlink()
    with pytest.raises(InputError, match="rows with images, and the base has no processor"):
        SFT.prepare(settings, tmp_path / "cache")


def test_another_processor_than_the_rows_were_prepared_with(bench: Bench) -> None:
    from trainables import runtime

    settings, preparation = bench.prepared()
    place = bench.folder / "base" / "preprocessor_config.json"
    text = place.read_text()
    try:
        place.write_text(json.dumps({**json.loads(text), "image_mean": [0.1, 0.1, 0.1]}))
        with pytest.raises(
            Fault, match=r"not the one that the rows were prepared with: preprocessor_config\.json changed"
        ):
            runtime.open_inputs(runtime.validated(settings), preparation)
    finally:
        place.write_text(text)
    runtime.open_inputs(runtime.validated(settings), preparation)


def test_images_are_read_once_a_search(bench: Bench) -> None:
    picture((24, 24)).save(bench.folder / "changed.png")
    preparation = prepared(bench, broken(bench, images=["changed.png"]))
    (bench.folder / "changed.png").unlink()
    again = prepared(bench, broken(bench, images=["changed.png"]))
    assert again == preparation


def test_a_look_says_what_images_cost_and_shows_them(bench: Bench) -> None:
    rows = broken(bench, images=["pictures/none.png"])
    place = write_jsonl(bench.folder / "looked.jsonl", rows)
    settings, _ = bench.prepared()
    settings["data"] = {**settings["data"], "train": str(place), "max_length": 40}
    found = SFT.look(settings, LookRequest(show=2))
    assert found is not None
    train = found.sets[0]
    assert train.figures["images"] == "23, 16 by 24 to 32 by 24 pixels as they are learned"
    assert train.figures["cost"].startswith("6 to 12 tokens with data.max_pixels=262,144; 6 to 12 tokens with 65,536")
    assert train.lengths["longest"] > 30 and (train.looked, len(train.shown)) == (23, 2)
    assert all(uri.startswith("data:image/jpeg;base64,") for row in train.shown for uri in row.pictures)
    assert found.refusal is not None and "pictures/none.png is not in" in found.refusal["what"]
    html = page(found)
    assert html.count("<img src=") == 2 and "6 to 12 tokens" in html
    light = SFT.look(settings, LookRequest(only_here=True))
    assert light is not None and "images count as one token each" in light.findings[0].what
    assert light.sets[0].lengths["longest"] < train.lengths["longest"]
