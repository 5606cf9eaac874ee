from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import completion_rows, write_jsonl
from trainables.data import reading
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
        ("a.jsonl", '[\n{"text": "x"}]', "a.jsonl:1", "malformed JSON"),
        ("a.json", '{"text": "x"}\n{"text": "y"}', "a.json:2", "Extra data"),
        ("a.json", '[{"text": "x"}, 3]', "a.json, row 2", "a JSON number"),
        ("a.json", "3", "a.json", "a JSON number"),
        ("a.jsonl", '{"text": "x"}\n' + "[" * 100_000 + "\n", "a.jsonl:2", "nested too deeply"),
        ("a.jsonl", '{"text": ' + "1" * 5000 + "}\n", "a.jsonl:1", "digits"),
        ("a.json", "[" * 100_000, "a.json", "nested too deeply"),
        ("a.csv", "text,b\nx,1\ny\n", "a.csv:3", "1 values"),
        ("a.csv", "text,b\n", "a.csv", "empty"),
        ("a.parquet", "no", "a.parquet", "not a Parquet file"),
        ("a.txt", "x", "a.txt", "cannot tell the format"),
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
    with pytest.raises(InputError, match="did not write"):
        read(tmp_path)


def test_a_missing_split(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "f")
    with pytest.raises(InputError, match="no split 'train'") as caught:
        read(tmp_path / "f")
    assert "test" in caught.value.expected
