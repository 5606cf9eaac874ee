"""A search whose run folder is moved, removed, or cannot be written; without Ray."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.driver.test_trial_manager import begun, opened  # noqa: F401  a fixture
from tuner.contract import Evaluation, InputError, Reason, Setup, Verdict
from tuner.disks import Trouble
from tuner.driver.disk_guard import DiskGuard, DiskLost, refused_by_disk
from tuner.driver.trial_manager import TrialManager
from tuner.results.ledger import Kind, Ledger, read_ledger
from tuner.results.records import SearchRecord
from tuner.scheduling.algorithms import CONTINUE


@pytest.fixture
def disk(tmp_path: Path) -> DiskGuard:
    (tmp_path / "run").mkdir()
    return DiskGuard(tmp_path / "run", 0, say=lambda text: None, note=lambda text: None, stopping=lambda: False)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Within it, the system itself refuses writes beyond `size` bytes of a file with `File too large`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def one_trial(manager: TrialManager) -> None:
    begun(manager, "a")
    manager.set_up("a", Setup(27, 10, 1000))
    manager.evaluated("a", Evaluation(9, 27, 3.0), 9, CONTINUE)


def events(folder: Path) -> list[Kind]:
    return [event.event for event in read_ledger(folder / "trials.jsonl")]


def test_a_folder_that_stays_is_no_trouble(disk: DiskGuard, tmp_path: Path) -> None:
    disk.require_here()
    disk.require_writable()
    assert disk.lost(ValueError("a bug")) is None
    assert disk.lost(OSError(errno.ENOSPC, "full")) is None, "a full disk is waited for"


def test_a_folder_that_is_moved_is_told_with_its_new_place(disk: DiskGuard, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    for look in (disk.tick, disk.require_here, disk.require_writable):
        with pytest.raises(DiskLost) as caught:
            look()
        assert caught.value.place == tmp_path / "elsewhere" / "run"
        assert f"moved while the search ran; it is {tmp_path / 'elsewhere' / 'run'} now" in caught.value.trouble
        assert "search --resume run --storage-path" in caught.value.trouble
    (tmp_path / "run").mkdir()  # as a library makes the folders that it misses
    with pytest.raises(DiskLost, match="moved"):
        disk.require_here()


@pytest.mark.parametrize("error", [ValueError("x"), InputError("x"), OSError(errno.ENOENT, "x")])
def test_a_folder_that_is_removed(disk: DiskGuard, tmp_path: Path, error: Exception) -> None:
    (tmp_path / "run").rmdir()
    with pytest.raises(DiskLost, match=f"{tmp_path / 'run'} was removed while the search ran"):
        disk.require_here()
    lost = disk.lost(error)
    assert lost is not None and "removed" in lost.told, "whatever came of it"


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_is_told_in_one_sentence(disk: DiskGuard, tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "run" / "trials.jsonl"))
    lost = disk.lost(error)
    assert lost is not None
    assert (
        lost.told
        == f"the run folder {tmp_path / 'run'} cannot be written or read ({Trouble(number, error.filename).told})"
    )
    assert lost.trouble.splitlines()[1].startswith("  try: python -m tuner search --resume run")
    refusal = refused_by_disk(error, tmp_path / "run")
    assert refusal is not None and os.strerror(number) in refusal.what
    assert refused_by_disk(OSError(errno.ECONNREFUSED, "x"), tmp_path / "run") is None


def test_what_was_reported_after_a_move_is_not_taken(opened: Any, tmp_path: Path) -> None:  # noqa: F811
    """Its adapter lies where the folder was. The trial is cut off, and the resume from the new place goes on."""
    manager, record = opened()
    one_trial(manager)
    before = events(tmp_path)
    new = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(new)
    manager.evaluated(
        "a", Evaluation(18, 27, 2.0, adapter=str(tmp_path / "adapters" / "0000" / "adapter")), 18, CONTINUE
    )
    assert manager.stopping and isinstance(manager.stop.failure, DiskLost) and manager.stop.failure.place == new
    assert record.trials[0].curve == [3.0] and events(new) == before
    manager.close()
    assert events(new) == [*before, Kind.INTERRUPTED]
    assert not record.trials[0].has_ended and not tmp_path.exists()
    new.rename(tmp_path)


@pytest.mark.parametrize("entry", ["suggest", "set_up", "evaluated", "ended", "stop_trial", "tick"])
def test_a_disk_that_fails_ends_the_search_and_no_trial(entry: str, opened: Any, tmp_path: Path) -> None:  # noqa: F811
    """Wherever it is met; every line that was there stays, and none is torn."""
    manager, record = opened()
    one_trial(manager)
    whole = (tmp_path / "trials.jsonl").read_bytes()
    manager.every(0, lambda: manager._ledger.append(Kind.NOTE, details={"text": "said"}))
    calls: dict[str, Callable[[], Any]] = {
        "suggest": lambda: manager.suggest("b"),
        "set_up": lambda: manager.set_up("a", Setup(27, 10, 1000)),
        "evaluated": lambda: manager.evaluated("a", Evaluation(18, 27, 2.0), 18, CONTINUE),
        "ended": lambda: manager.ended("a", Verdict(Reason.ERROR, "x")),
        "stop_trial": lambda: manager.stop_trial(0),
        "tick": manager.tick,
    }
    with files_no_larger_than(len(whole) + 10):
        assert calls[entry]() is None
        manager.close()
    assert isinstance(manager.stop.failure, DiskLost) and "File too large" in manager.stop.failure.told
    assert (tmp_path / "trials.jsonl").read_bytes() == whole
    assert not record.trials[0].has_ended
    manager, record = opened()
    assert begun(manager, "c").resume.step == 9, "a resume goes on with it"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_trial_that_its_disk_loses_again_and_again_does_not_fail(number: int, opened: Any) -> None:  # noqa: F811
    """The driver's own disk is well: a node's, say. It is tried again, and then the search ends, not the trial."""
    manager, record = opened()
    verdict = Trouble(number).verdict
    for attempt in range(1, 5):
        assert begun(manager, f"a{attempt}").attempt == attempt
        manager.set_up(f"a{attempt}", Setup(27, 10, 1000))
        assert not manager.stopping
        manager.ended(f"a{attempt}", verdict)
    assert isinstance(manager.stop.failure, DiskLost) and os.strerror(number) in manager.stop.failure.told
    assert not record.trials[0].has_ended and record.trials[0] in record.cut_off


def test_a_workers_word_has_the_driver_look_at_the_folder(opened: Any, tmp_path: Path) -> None:  # noqa: F811
    manager, record = opened()
    one_trial(manager)
    new = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(new)
    manager.ended("a", Trouble(errno.ENOENT, str(tmp_path)).verdict)
    assert isinstance(manager.stop.failure, DiskLost) and "moved" in manager.stop.failure.told
    assert events(new)[-1] is Kind.INTERRUPTED and not record.trials[0].has_ended
    new.rename(tmp_path)


def test_a_line_that_could_not_be_taken_back_at_once_is_taken_back_later(tmp_path: Path) -> None:
    """A disk that comes back must not find half a line before the next one."""
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.append(Kind.NOTE, details={"text": "first"})
    whole = (tmp_path / "trials.jsonl").read_bytes()
    truncate, ledger._file = ledger._file, _CannotTruncate(ledger._file)  # type: ignore[assignment]
    with files_no_larger_than(len(whole) + 10), pytest.raises(OSError):
        ledger.append(Kind.NOTE, details={"text": "second"})
    assert len((tmp_path / "trials.jsonl").read_bytes()) == len(whole) + 10
    ledger._file = truncate
    ledger.append(Kind.NOTE, details={"text": "third"})
    ledger.close()
    texts = [event.details["text"] for event in read_ledger(tmp_path / "trials.jsonl")]
    assert texts == ["first", "third"] and (tmp_path / "trials.jsonl").read_bytes().startswith(whole)
    assert SearchRecord.fold(read_ledger(tmp_path / "trials.jsonl")).notes == texts


class _CannotTruncate:
    """The open file of a disk on which truncating fails too; no real disk does this on demand."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def truncate(self, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_an_adapter_is_not_written_where_the_folder_was(tmp_path: Path) -> None:
    from trainables.heartbeat import Heartbeat
    from trainables.models.adapter_files import replace_adapter

    folder = tmp_path / "run" / "adapters" / "0000"
    folder.mkdir(parents=True)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        replace_adapter(folder, lambda beside: beside.mkdir(parents=True))
    with pytest.raises(FileNotFoundError):
        Heartbeat(folder).beat()
    assert not (tmp_path / "run").exists()
