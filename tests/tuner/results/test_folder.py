"""The run folder: contained, not overwritten, one writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuner.contract import InputError
from tuner.results.folder import RunFolder, RunLock, create_run, open_run


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "", ".hidden", "-x", "a" * 65, "naïve", "a b", "/etc", "..", "a\n", "a\x00"]
)
def test_a_name_that_could_leave_the_storage_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a run"):
        create_run(tmp_path / "runs", name)
    assert not list(tmp_path.iterdir())


def test_an_existing_run_is_refused_with_the_line_that_resumes_it(tmp_path: Path) -> None:
    create_run(tmp_path, "first")
    with pytest.raises(InputError, match="--resume first"):
        create_run(tmp_path, "first")


def test_a_missing_run_names_the_nearest(tmp_path: Path) -> None:
    (create_run(tmp_path, "first").ledger).touch()
    with pytest.raises(InputError, match="one of: first"):
        open_run(tmp_path, "frist")


def test_the_second_driver_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path, "first")
    lock = RunLock(run)
    code = (
        "import sys; from pathlib import Path; from tuner.contract import InputError\n"
        "from tuner.results.folder import RunFolder, RunLock\n"
        f"try: RunLock(RunFolder(Path({str(run.path)!r})))\n"
        "except InputError as error: print(error); sys.exit(2)"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode == 2 and "another driver" in second.stdout
    lock.release()
    RunLock(run).release()


def test_a_full_disk_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MiB are free"):
        create_run(tmp_path, "first", needed=2**62)
    assert not (tmp_path / "first").exists()


def test_a_path_to_a_run_folder_is_a_name_too(tmp_path: Path) -> None:
    run = create_run(tmp_path, "first")
    run.ledger.touch()
    assert open_run(Path("elsewhere"), str(run.path)) == RunFolder(run.path)
