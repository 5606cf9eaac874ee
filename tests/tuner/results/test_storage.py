"""Object stores that do not answer as they should; a real one is in integration/test_storage.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tuner.config.paths import storage_folder
from tuner.contract import InputError
from tuner.results import storage


def test_a_lock_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    copy = storage_folder(f"file://{tmp_path}/store")
    (copy / "run").mkdir(parents=True)
    try:
        storage.Mirror(copy / "run").close()
        lock = tmp_path / "store" / "run" / storage.LOCK
        lock.unlink()
        assert not storage.is_written(copy / "run")  # none
        lock.mkdir()  # a store that answers with an error
        for ask in (storage.Mirror, storage.is_written):
            with pytest.raises(InputError, match="could not be found out whether another driver writes the run"):
                ask(copy / "run")
    finally:
        shutil.rmtree(copy)
