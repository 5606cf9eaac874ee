"""Does something for a person at another machine, as a short Ray job on the cluster: `python -m tuner.cluster.errand`.

The run folder is on the cluster, and so is the driver that a request is for. The job runs where the driver does, on the
head node. It prints one JSON object: the answer, or an error in its parts. `errands.py` is the other side.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.cluster.job_log import log_of_this_job
from tuner.contract import InputError
from tuner.results.folder import RunFolder, open_run

LENT_S = 900.0
"""Seconds for which files are lent if the machine that asked for them does not say that it has them."""
BOARDS = ("trials.jsonl", "study.journal", "resolved.json", "tensorboard")
"""What the dashboards of a search are made from, in its run folder."""


def main() -> None:
    """Carries out the order that the command line gives as JSON: `duty`, `storage_path`, `name`, and the duty's own."""
    order = json.loads(sys.argv[1])
    try:
        folder = open_run(_storage(order["storage_path"]), order["name"])
        if order["duty"] == "ask":
            _answer(_ask(folder, order))
            return
        with lent(folder) as place:
            _answer({"place": place, "files": _LISTS[order["duty"]](folder)})
            ended = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: ended.set())
            ended.wait(LENT_S)
    except InputError as error:
        parts = {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}
        _answer({"error": parts})


def _ask(folder: RunFolder, order: Mapping[str, Any]) -> dict[str, str]:
    from tuner.results.requests import ask

    return {"message": ask(folder, order["action"], order["values"])}


def _storage(text: str) -> Path:
    from tuner.config.paths import is_uri, storage_folder

    return storage_folder(text) if is_uri(text) else Path(text)


def _best(folder: RunFolder) -> dict[str, int]:
    """The files of `best/`, each compared with its SHA-256, and their sizes in bytes."""
    from tuner.results.adapters import MANIFEST
    from tuner.results.export import require_best

    manifest = require_best(folder)
    return {f"best/{name}": (folder.best / name).stat().st_size for name in (*manifest["files"], MANIFEST)}


def _boards(folder: RunFolder) -> dict[str, int]:
    """The files that the dashboards of a search are made from, and their sizes in bytes."""
    from tuner.results.untrusted_read import is_plain_file, plain_files

    found = [folder.path / name for name in BOARDS if is_plain_file(folder.path / name)]
    found += plain_files(folder.tensorboard) if folder.tensorboard.is_dir() else []
    return {file.relative_to(folder.path).as_posix(): file.stat().st_size for file in found}


_LISTS: Mapping[str, Callable[[RunFolder], dict[str, int]]] = {"best": _best, "boards": _boards}
"""The files that each duty lends, by name in the run folder, with their sizes."""


@contextmanager
def lent(folder: RunFolder) -> Iterator[str]:
    """A link to the run folder among Ray's logs, whose files the dashboard serves; gone when this ends.

    Yields its place there. Raises InputError if it cannot be made.
    """
    log = log_of_this_job()
    link = log.with_name(f"tuner-{log.stem}")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.path, target_is_directory=True)
    except OSError as error:
        raise InputError(f"cannot write among Ray's logs ({error.strerror or error})", where=str(link)) from error
    try:
        yield link.name
    finally:
        link.unlink(missing_ok=True)


def _answer(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
