"""Odd entries in the folders of a run that others may write: none blocks, and none is followed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tuner.report import searches
from tuner.contract import InputError
from tuner.redaction import LogFile, open_log
from tuner.results.adapters import checked_manifest, drop_surplus, write_best
from tuner.results.folder import RunFolder, create_run, open_run
from tuner.results.storage import _files
from tuner.results.untrusted_read import plain_files, read_object


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "x").touch()


def a_link_to_nothing(place: Path) -> None:
    place.symlink_to("nowhere")


def a_link_to_itself(place: Path) -> None:
    place.symlink_to(place)


ODD = [os.mkfifo, a_folder, a_link_to_nothing, a_link_to_itself]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = create_run(tmp_path, "first")
    adapter = made.trial(1) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"0" * 100)
    return made


@pytest.mark.parametrize("name", ["best.new", "best.old", "best"])
@pytest.mark.parametrize("make", [Path.touch, *ODD])
def test_the_best_adapter_is_written_whatever_stands_there(
    folder: RunFolder, make: Callable[[Path], None], name: str
) -> None:
    make(folder.path / name)
    record = searches.finished().record
    assert record.best is not None
    record.best.adapter = "adapters/0001/adapter"
    assert write_best(folder, record, train={}, resolved={}) == folder.best
    assert "adapter_model.safetensors" in checked_manifest(folder.best)["files"]


@pytest.mark.parametrize("make", ODD)
def test_an_adapter_with_odd_files_is_copied_without_them(folder: RunFolder, make: Callable[[Path], None]) -> None:
    make(folder.trial(1) / "adapter" / "odd")
    record = searches.finished().record
    assert record.best is not None
    record.best.adapter = "adapters/0001/adapter"
    assert write_best(folder, record, train={}, resolved={}) == folder.best
    assert {"odd"}.isdisjoint(checked_manifest(folder.best)["files"])


def test_names_among_the_adapters_that_are_no_numbers(folder: RunFolder) -> None:
    """`"\\u00b2".isdigit()` is true, and `int` refuses it."""
    for name in ("\u00b2", "x", "-1", "9" * 200, os.fsdecode(b"\xff")):
        (folder.adapters / name).mkdir()
    drop_surplus(folder, searches.finished().record, 1)


@pytest.mark.parametrize("make", ODD)
def test_a_log_that_is_no_file_blocks_nobody(tmp_path: Path, make: Callable[[Path], None]) -> None:
    place = tmp_path / "driver.log"
    make(place)
    handler = LogFile(place)
    handler.emit(logging.LogRecord("a", logging.INFO, "b", 1, "said", None, None))
    handler.close()
    with open_log(place) as log:
        log.write(b"said")


def test_a_log_whose_folder_is_gone_costs_nobody_a_trial(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "gone" / "driver.log")
    handler.emit(logging.LogRecord("a", logging.INFO, "b", 1, "said", None, None))
    handler.close()


def test_a_log_is_written(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "driver.log")
    for text in ("one", "two\udc80"):
        handler.emit(logging.LogRecord("a", logging.INFO, "b", 1, text, None, None))
    handler.close()
    assert (tmp_path / "driver.log").read_text().endswith("INFO a: two\\udc80\n")


@pytest.mark.parametrize("make", ODD[:1] + ODD[2:])
def test_what_is_carried_to_a_store_are_plain_files(folder: RunFolder, make: Callable[[Path], None]) -> None:
    make(folder.logs / "odd")
    (folder.logs / "round").symlink_to(folder.path)
    (folder.logs / "driver.log").write_text("said")
    assert list(_files(folder.path, ("adapters",))) == [folder.logs / "driver.log"]
    assert list(plain_files(folder.path / "nothing")) == []


@pytest.mark.parametrize("make", ODD)
def test_a_run_is_found_among_odd_neighbours(folder: RunFolder, make: Callable[[Path], None]) -> None:
    folder.ledger.touch()
    make(folder.path.parent / "frist")
    make(folder.path.parent / os.fsdecode(b"\xff\n"))
    (folder.path.parent / "other").mkdir()
    make(folder.path.parent / "other" / "trials.jsonl")
    with pytest.raises(InputError, match="one of: first") as caught:
        open_run(folder.path.parent, "frost")
    assert "other" not in caught.value.expected


@pytest.mark.parametrize("make", [*ODD, lambda place: os.truncate(os.open(place, os.O_CREAT | os.O_RDWR), 1 << 30)])
def test_json_that_is_none_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "resolved.json")
    with pytest.raises(InputError) as caught:
        read_object(tmp_path / "resolved.json")
    assert caught.value.where == str(tmp_path / "resolved.json")
