from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import completion_rows, write_jsonl
from trainables.data import formats, reading, shaping, splitting
from trainables.settings import DataSettings
from tuner.contract import InputError

ROWS = completion_rows(5)


def read(path: Path | str, **more: str) -> reading.Rows:
    return reading.read(str(path), DataSettings(train=str(path), **more))


def test_every_file_format_gives_the_same_rows(tmp_path: Path) -> None:
    import datasets
    import pandas
    import pyarrow
    import pyarrow.parquet

    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "wrapped.json").write_text(json.dumps({"data": ROWS}))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    pandas.DataFrame(ROWS).to_csv(tmp_path / "d.csv", index=False)
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "e")
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "f")
    for name in ("a.jsonl", "b.json", "wrapped.json", "c.parquet", "d.csv", "e", "f"):
        assert read(tmp_path / name).rows == ROWS, name


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1]) + "\n", encoding="utf-8")
    rows = read(path)
    assert rows.rows == ROWS[:2]
    assert rows.where(1) == f"{path}:3"


@pytest.mark.parametrize(
    ("name", "text", "where", "what"),
    [
        ("a.jsonl", "", "a.jsonl", "empty"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y"\n', "a.jsonl:2", "malformed JSON"),
        ("a.jsonl", '{"text": "x"}\n["y"]\n', "a.jsonl:2", "a JSON array"),
        ("a.jsonl", '[\n{"text": "x"}', "a.jsonl:2", "malformed JSON"),
        ("a.json", '{"text": "x"}\n{"text": "y"', "a.json:2", "malformed JSON"),
        ("a.json", '{"text": "x"}', "a.json", "a JSON object with 'text'"),
        ("a.json", '[{"text": "x"}, 3]', "a.json, row 2", "a JSON number"),
        ("a.json", "3", "a.json", "a JSON number"),
        ("a.jsonl", '{"text": "x"}\n' + "[" * 100_000 + "\n", "a.jsonl:2", "nested too deeply"),
        ("a.jsonl", '{"text": ' + "1" * 5000 + "}\n", "a.jsonl:1", "digits"),
        ("a.json", "[" * 100_000, "a.json", "nested too deeply"),
        ("a.csv", "text,b\nx,1\ny\n", "a.csv:3", "1 values"),
        ("a.csv", "text,b\n", "a.csv", "empty"),
        ("a.parquet", "no", "a.parquet", "not a Parquet file"),
        ("a.md", "x", "a.md", "cannot tell the format"),
        ("a.csv", "a,a\nx,1\n", "a.csv:1", "two columns are called 'a'"),
    ],
)
def test_malformed_files_are_named_by_line(tmp_path: Path, name: str, text: str, where: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=what) as caught:
        read(tmp_path / name)
    assert caught.value.where == str(tmp_path / where)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        read(tmp_path / "a.jsonl")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read("rows.jsonl")


def test_a_folder_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without files of rows"):
        read(tmp_path)


def test_a_missing_split(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "f")
    with pytest.raises(InputError, match="no split 'train'") as caught:
        read(tmp_path / "f")
    assert "test" in caught.value.expected


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes `rows` in the format of the name's suffix; without a suffix, as a folder of `datasets`."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    path = folder / name
    match path.suffix:
        case ".jsonl":
            write_jsonl(path, rows)
        case ".json":
            path.write_text(json.dumps({"data": rows} if name.startswith("wrapped") else rows))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
        case _ if name == "splits":
            datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(path)
        case _:
            datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


PLACES = {
    "a.jsonl": "a.jsonl:90", "a.json": "a.json, row 90", "wrapped.json": "wrapped.json, row 90",
    "a.parquet": "a.parquet, row 90", "folder": "folder, row 90", "splits": "splits (train), row 90",
}  # fmt: skip


@pytest.mark.parametrize(("name", "place"), PLACES.items())
@pytest.mark.parametrize("part", ["whole", "split", "split and drawn"])
def test_a_row_is_counted_in_its_file_whatever_became_of_the_rows(
    tmp_path: Path, name: str, place: str, part: str
) -> None:
    rows: list[dict[str, Any]] = completion_rows(100)
    rows[89]["completion"] = None
    path = written(tmp_path, name, rows)
    found = reading.read(str(path), DataSettings(train=str(path)))
    sets = [found]
    if part != "whole":
        limit = 95 if part == "split and drawn" else None
        # Seeds differ in which of the two sets has the row, and in whether the row is drawn
        for seed in range(6):
            data = DataSettings(train=str(path), seed=seed, validation_fraction=0.5 if limit is None else 0.02,
                                max_train_rows=limit)  # fmt: skip
            sets += splitting.split(found, None, data)
        sets = [part for part in sets[1:] if rows[89] in part.rows]
        assert len(sets) >= 5
    for part_of_it in sets:
        with pytest.raises(InputError) as caught:
            data = DataSettings(train="x")
            shaping.normalize(part_of_it, formats.detect(part_of_it, data), data)
        assert caught.value.where == str(tmp_path / place)


def test_a_record_of_several_lines_is_at_its_first(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,b\n"one\ntwo\nthree",1\n\n"four\nfive",2\nsix,3\n')
    rows = read(path)
    assert [row["b"] for row in rows.rows] == ["1", "2", "3"]
    assert [rows.where(index) for index in range(3)] == [f"{path}:{line}" for line in (2, 6, 8)]
    path.write_text('text,b\nx,1\n"one\ntwo",2,3\n')
    with pytest.raises(InputError, match="3 values") as caught:
        read(path)
    assert caught.value.where == f"{path}:3"
    path.write_text('text,b\nx,1\n"never closed,2\ny,3\n')
    with pytest.raises(InputError, match="malformed CSV") as caught:
        read(path)
    assert caught.value.where == f"{path}:3"


def test_columns_that_only_one_set_has_are_named_with_their_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "answer": "b"} for _ in range(10)]
    path = written(tmp_path, "a.json", rows)
    part = read(path).select([6, 8])
    with pytest.raises(InputError, match="the columns are") as caught:
        formats.detect(part, DataSettings(train=str(path)))
    assert caught.value.where == f"{path}, row 7"
