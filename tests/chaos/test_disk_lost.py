"""Disks that fail under a running search, and run folders that are moved or removed: the search is only interrupted.

The errors come from below Python: a small library (failing_disk.c), loaded before the C library, answers calls on files
of the run folder with an error number. Folders are really renamed and removed, and a process' limit on open files is
really lowered.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import driving, invariants
from tests.chaos.driving import Driver, Shared
from tests.chaos.faults import Count
from tuner.contract import Status
from tuner.driver.ending import INTERRUPTED
from tuner.results.ledger import Kind, read_ledger
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.chaos

TRAIN = {"pace": 0.3}
TRIALS = 4


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with driving.shared_ray() as ray:
        yield ray


class Failing:
    """A disk that fails between `breaks` and `heals`, for processes with this environment."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._now = folder / "failing-now"
        self.environment = {
            "LD_PRELOAD": str(library), "FAILING_NOW": str(self._now), "FAILING_UNDER": str(folder / "run")
        }  # fmt: skip

    def breaks(self, number: int) -> None:
        beside = self._now.with_suffix(".new")
        beside.write_text(f"{number}\n")
        beside.rename(self._now)

    def heals(self) -> None:
        self._now.unlink()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("library") / "failing_disk.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


def begun(driver: Driver, least: int = 3) -> None:
    driver.wait(driving.counting(Kind.EVALUATION, least))
    driver.look_around()


def ends_interrupted(driver: Driver, *said: str, within: float = 60) -> str:
    """Checks that the driver ends as interrupted within so many seconds, and says `said`; gives its last message."""
    began = time.monotonic()
    code, _, errors = driver.end(timeout=within)
    assert code == INTERRUPTED, errors
    assert "Traceback" not in errors and "fault of the tuner" not in errors
    told = errors[errors.rindex("\nerror: ") + 1 :]
    assert all(one in told for one in said), told
    assert told.count("\n") <= 2 and "every report before it is kept" in told and "search --resume" in told
    print(f"ended after {time.monotonic() - began:.1f} s: {told}")
    return told


def goes_on(folder: Path, before: list[object], on: Shared | None) -> SearchRecord:
    """Checks that no trial has failed, that nothing of `before` is lost, and that a resume finishes the run with every
    invariant held."""
    events = list(read_ledger(folder / "trials.jsonl"))
    assert events[: len(before)] == before
    record = SearchRecord.fold(events)
    assert not [t for t in record.trials.values() if t.status is Status.FAILED]
    driver = driving.start(folder.parent, "--resume", folder.name, name=folder.name, on=on)
    code, _, errors = driver.end()
    assert code == 0, errors
    return invariants.check(folder, num_trials=TRIALS, exit_code=code, family=driver.family)


@pytest.mark.parametrize(
    "number",
    [
        errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.ENOTCONN, errno.EFBIG,
        errno.ENOENT,
    ],
    ids=lambda number: errno.errorcode[number],
)  # fmt: skip
def test_the_drivers_disk_fails(shared: Shared, library: Path, tmp_path: Path, number: int, fault: Count) -> None:
    disk = Failing(library, tmp_path)
    driver = driving.toy(tmp_path, train=TRAIN, trials=TRIALS, environment=disk.environment, on=shared)
    begun(driver)
    disk.breaks(number)
    ends_interrupted(driver, f"the run folder {tmp_path / 'run'} cannot be written or read", os.strerror(number))
    disk.heals()
    goes_on(tmp_path / "run", [], shared)
    fault("a disk that fails under a running search")


def test_everybodys_disk_fails(library: Path, tmp_path: Path, fault: Count) -> None:
    """The workers' too: their trials are lost by the disk and not by themselves."""
    disk = Failing(library, tmp_path)
    driver = driving.toy(tmp_path, train=TRAIN, trials=TRIALS, environment=disk.environment)
    begun(driver)
    before = driver.events
    disk.breaks(errno.EIO)
    ends_interrupted(driver, "Input/output error")
    invariants.check_processes(driver.family)
    disk.heals()
    goes_on(tmp_path / "run", list(before), None)
    fault("a disk that fails under a running search")


def test_a_disk_that_is_broken_at_the_start(library: Path, tmp_path: Path, fault: Count) -> None:
    """Nothing is begun, and nothing stays; a resume says the same."""
    disk = Failing(library, tmp_path)
    disk.breaks(errno.EROFS)
    code, _, errors = driving.toy(tmp_path, environment=disk.environment).end()
    assert code == 2 and "Read-only file system" in errors and "Traceback" not in errors
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials.jsonl").touch()
    code, _, errors = driving.resume(tmp_path, environment=disk.environment).end()
    assert code == 2 and "Read-only file system" in errors and "Traceback" not in errors
    fault("a disk that fails at the start of a search")


def test_a_run_folder_that_is_moved(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, train=TRAIN, trials=TRIALS, on=shared)
    begun(driver)
    (tmp_path / "elsewhere").mkdir()
    new = tmp_path / "elsewhere" / "run"
    before = driver.events
    driver.folder.rename(new)
    told = ends_interrupted(driver, f"was moved while the search ran; it is {new} now")
    assert f"--storage-path {new.parent}" in told
    assert not (tmp_path / "run" / "trials.jsonl").exists()
    goes_on(new, list(before), shared)
    fault("a run folder that is moved under its search")


def test_a_run_folder_that_is_removed(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, train=TRAIN, trials=TRIALS, on=shared)
    begun(driver)
    shutil.rmtree(driver.folder, ignore_errors=True)
    ends_interrupted(driver, f"the run folder {tmp_path / 'run'} was removed while the search ran")
    fault("a run folder that is removed under its search")


def test_no_file_can_be_opened_any_more(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, train=TRAIN, trials=TRIALS, on=shared)
    begun(driver)
    before = driver.events
    open_now = len(list(Path(f"/proc/{driver.process.pid}/fd").iterdir()))
    resource.prlimit(driver.process.pid, resource.RLIMIT_NOFILE, (min(32, open_now), 4096))
    ends_interrupted(driver, "Too many open files")
    goes_on(tmp_path / "run", list(before), shared)
    fault("a driver that can open no more files")
