"""A real disk of 3 MB that fills up: what was written stays intact, the search pauses, says why, and goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tests.chaos.runs import ROOT, finished_run, tuner
from tests.integration.conftest import SPACE, TOY
from tests.tuner.report import searches
from trainables.data import store
from trainables.data.tokens import Tokens
from tuner.config import load_experiment
from tuner.contract import InputError, Preparation, Reason, Status
from tuner.disks import trouble_of
from tuner.driver.session import resume_search, run_search
from tuner.ray_cluster.session import ray_session
from tuner.results.adapters import checked_manifest, write_best
from tuner.results.export import export_best
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind, Ledger, read_ledger
from tuner.results.records import SearchRecord

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mounts a file system of 3 MB, and gives its folder."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Writes a file that fills the disk but for `leave` bytes; deleting the file frees them."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize) > leave or not leave:
                    file.write(b"0" * min(size, max(1, free - leave) if leave else size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


def test_too_little_at_the_start_leaves_nothing_behind(disk: Path, fault: Count) -> None:
    done = tuner("search", "--storage-path", str(disk), "--name", "x", cwd=disk.parent)
    assert done.returncode == 2 and b"MiB are free on this disk" in done.stderr and b"run.min_free_mb" in done.stderr
    fill(disk)
    done = tuner("search", "--set", "run.min_free_mb=0", "--storage-path", str(disk), "--name", "x", cwd=disk.parent)
    assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr
    assert b"o room on the disk" in done.stderr or b"cannot write here (No space left" in done.stderr
    assert [p.name for p in disk.iterdir()] == ["ballast"]
    fault("a disk of 3 MB, full at the start")


def test_a_line_that_does_not_fit_is_taken_back(disk: Path, fault: Count) -> None:
    path = disk / "trials.jsonl"
    ledger = Ledger(path)
    for event in searches.finished().events[:9]:
        ledger.append(event.event, number=event.number)
    whole = path.read_bytes()
    fill(disk)
    with pytest.raises(OSError) as caught:
        ledger.append(Kind.NOTE, details={"text": "x" * 100_000})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == whole
    waits = iter([disk.parent / "nothing", disk / "ballast"])
    ledger._full = lambda error: next(waits).unlink(missing_ok=True)
    ledger.append(Kind.NOTE, details={"text": "y" * 100_000})
    assert path.read_bytes().startswith(whole) and len(list(read_ledger(path))) == 10
    fault("a disk of 3 MB, full in the middle of a write")


def test_best_stays_what_it_was(disk: Path, fault: Count) -> None:
    path = finished_run(disk)
    folder = RunFolder(path)
    record = folder.record()
    winner = record.best
    assert winner is not None
    winner.adapter = "adapters/0001/adapter"
    (path / winner.adapter / "adapter_model.safetensors").write_bytes(os.urandom(MIB))
    before = checked_manifest(path / "best")
    ballast = fill(disk, leave=MIB // 2)
    with pytest.raises(OSError):
        write_best(folder, record, train={}, resolved={})
    assert checked_manifest(path / "best") == before and not (path / "best.new").exists()
    ballast.unlink()
    assert write_best(folder, record, train={}, resolved={}) == path / "best"
    assert (path / "best/adapter_model.safetensors").stat().st_size == MIB
    assert checked_manifest(path / "best")["files"] != before["files"]
    fault("a disk of 3 MB, full in the middle of a write")


def test_an_export_says_what_is_wrong(disk: Path, tmp_path: Path, fault: Count) -> None:
    path = finished_run(tmp_path / "runs")
    fill(disk, leave=6000)
    with pytest.raises(InputError, match="cannot write here") as caught:
        export_best(RunFolder(path), disk / "out")
    assert "make room" in caught.value.remedy
    fault("a disk of 3 MB, full in the middle of a write")


def test_an_adapter_that_does_not_fit_leaves_the_one_before(disk: Path, fault: Count) -> None:
    """Saved by safetensors, whose own error is no OSError."""
    import torch
    from safetensors.torch import save_file

    from trainables.models.adapter_files import replace_adapter

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file({"a": torch.ones(200_000)}, folder / "adapter_model.safetensors")

    place = replace_adapter(disk, write)
    whole = (place / "adapter_model.safetensors").read_bytes()
    ballast = fill(disk, leave=300_000)
    with pytest.raises(Exception) as caught:
        replace_adapter(disk, write)
    trouble = trouble_of(caught.value)
    assert trouble is not None and trouble.is_full and trouble.verdict.reason is Reason.INFRASTRUCTURE
    assert (place / "adapter_model.safetensors").read_bytes() == whole
    assert sorted(p.name for p in disk.iterdir()) == ["adapter", ballast.name]
    fault("a disk of 3 MB, full in the middle of a write")


def test_rows_that_do_not_fit(disk: Path, fault: Count) -> None:
    tokens = Tokens()
    for _ in range(500):
        tokens.add(list(range(1000)), list(range(1000)), 1000)
    with pytest.raises(InputError, match="tokenized rows cannot be written"):
        store.save(disk / "data" / "0123", {"train": tokens}, Preparation("x"))
    assert not list((disk / "data").iterdir())
    fault("a disk of 3 MB, full in the middle of a write")


# On real Ray


class Search:
    """A toy search on the disk, in a process of its own; its standard error goes to a file on another disk."""

    def __init__(self, disk: Path, *arguments: str) -> None:
        self.folder, self.ledger = disk / "toy", disk / "toy" / "trials.jsonl"
        self.file = disk.parent / "said"
        command = [sys.executable, "-m", "tuner", "search", *arguments, "--storage-path", str(disk)]
        with self.file.open("a") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=said,
                text=True,
            )  # fmt: skip
        self.driver = driving.Driver(process, self.folder)

    @classmethod
    def begin(cls, disk: Path, trials: int = 6, pace: float = 0.05, min_free_mb: int = 0) -> Search:
        values = {"run.min_free_mb": min_free_mb, "train.pace": pace, "search.space": json.dumps(SPACE)}
        words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        return cls(disk, "--program", TOY, "--name", "toy", "--num-trials", str(trials), *words)

    @property
    def said(self) -> str:
        return self.file.read_text()

    def until(self, what: Callable[[], bool], timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline and self.driver.process.poll() is None, self.said
            time.sleep(0.05)
        self.driver.look_around()

    def until_evaluated(self, least: int) -> None:
        enough = driving.counting(Kind.EVALUATION, least)
        self.until(lambda: enough(self.driver.events))

    def ends(self) -> int:
        code = self.driver.process.wait(timeout=120)
        assert "Traceback" not in self.said and "fault of the tuner" not in self.said
        return code

    def ends_whole(self, trials: int = 6) -> SearchRecord:
        """Waits until it ends; checks every invariant, and that every trial is completed or pruned."""
        code = self.ends()
        record = invariants.check(self.folder, num_trials=trials, exit_code=code, family=self.driver.family)
        assert code == 0 and all(t.status in (Status.COMPLETED, Status.PRUNED) for t in record.ended), self.said
        return record


@pytest.mark.chaos
def test_little_room_pauses_and_room_goes_on(disk: Path, fault: Count) -> None:
    search = Search.begin(disk, trials=4, pace=0.2, min_free_mb=2)
    search.until_evaluated(2)
    ballast = fill(disk, leave=300_000)
    search.until(lambda: any("paused: only" in e.details.get("text", "") for e in search.driver.events))
    size = search.ledger.stat().st_size
    time.sleep(2)
    assert search.ledger.stat().st_size == size, "nobody goes on"
    assert "note: paused: only 0.3 MiB are free on the disk of" in search.said
    ballast.unlink()
    record = search.ends_whole(trials=4)
    assert any("room again" in note for note in record.notes) and "room again" in search.said
    fault("a disk of 3 MB, full under a running search")


@pytest.mark.chaos
def test_no_room_at_all_pauses_and_a_signal_ends_it(disk: Path, fault: Count) -> None:
    search = Search.begin(disk)
    search.until_evaluated(4)
    ballast = fill(disk)
    search.until(lambda: "paused: no room on the disk" in search.said)
    before = search.driver.events
    search.driver.process.send_signal(signal.SIGINT)
    assert search.ends() == 130
    invariants.check_kept(before, search.driver.events)
    invariants.check_ledger(search.folder)
    invariants.check_processes(search.driver.family)
    assert "--resume toy" in search.said
    ballast.unlink()
    Search(disk, "--resume", "toy").ends_whole()
    fault("a disk of 3 MB, full under a running search")


@pytest.mark.chaos
def test_an_end_that_cannot_be_written_is_written_by_a_resume(disk: Path, tmp_path: Path, fault: Count) -> None:
    """The last trial has ended when the disk fills up: there is no room for the winner's copy."""
    ended: list[int] = []

    def listener(event: Event) -> None:
        if event.event is Kind.ENDED and (ended.append(event.number or 0) or len(ended) == 3):  # type: ignore[func-returns-value]
            for adapter in (disk / "toy/adapters").glob("*/adapter"):
                (adapter / "large").write_bytes(os.urandom(MIB // 2))
            fill(disk, leave=150_000)

    flags = {"run.program": TOY, "run.name": "toy", "run.storage_path": str(disk), "search.space": SPACE}
    flags |= {"search.num_trials": 3, "run.min_free_mb": 0}
    with ray_session(None, tmp_path / "log"):
        outcome = run_search(load_experiment(None, (), flags), [listener])
        assert outcome.exit_code == 1 and "no room on the disk" in outcome.trouble and "--resume toy" in outcome.trouble
        assert len(outcome.record.ended) == 3 and not (disk / "toy" / "best").exists()
        before = list(read_ledger(disk / "toy" / "trials.jsonl"))
        (disk / "ballast").unlink()
        again = resume_search(disk, "toy")
    assert again.exit_code == 0 and not again.trouble
    invariants.check_kept(before, list(read_ledger(disk / "toy" / "trials.jsonl")))
    invariants.check(again.path, num_trials=3, exit_code=again.exit_code)
    fault("a disk of 3 MB, full at the end of a search")


@pytest.mark.chaos
def test_a_disk_that_fills_up_again_and_again(disk: Path, fault: Count) -> None:
    search = Search.begin(disk)
    for seen in (2, 6, 10, 14):
        search.until_evaluated(seen)
        ballast = fill(disk)
        time.sleep(1.5)
        ballast.unlink()
    code = search.ends()
    record = invariants.check(search.folder, num_trials=6, exit_code=code, family=search.driver.family)
    failed = [t for t in record.ended if t.status is Status.FAILED]
    assert all(t.message.startswith("no room on the disk") for t in failed), "a program that has no answer to it"
    fault("a disk of 3 MB, full under a running search", 4)
