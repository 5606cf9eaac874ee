"""Starts a search in a process of its own, which goes on when the server has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.results.folder import RunFolder, default_name

STARTS_WITHIN_S = 20.0
"""Seconds to wait for the search to begin; Ray starts in 5 to 10."""
_TAIL = 4000
"""Characters of what a search printed that an error has."""


def start(
    file: str | None, settings: Mapping[str, Any], name: str | None, storage_path: Path, modules: Sequence[str] = ()
) -> dict[str, Any]:
    """Starts `tuner search` and waits until it has begun, or `STARTS_WITHIN_S`. settings: by dotted name.

    Returns its name, the run folder, its state ("running", or "starting" where it has not begun yet), its process id
    and the file with what it prints. Raises InputError where it ended before it began: with what it said.
    """
    name = name or default_name()
    folder = RunFolder(storage_path.resolve() / name)
    if _has_begun(folder):
        raise InputError(f"the run {name!r} is already there", where=str(folder.path), expected="another name")
    words = [sys.executable, "-m", "tuner", "search", *([file] if file is not None else []), "--plain"]
    words += ["--name", name, "--storage-path", str(storage_path)]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    words += [word for module in modules for word in ("--allow-module", module)]
    number, log = tempfile.mkstemp(prefix=f"tuner-{name}-", suffix=".log")
    with os.fdopen(number, "wb") as output:
        process = subprocess.Popen(  # in a session of its own: a signal to the server's group is none for the search
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    threading.Thread(target=process.wait, name=f"search {name}", daemon=True).start()
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not _has_begun(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() not in (None, 0) and not _has_begun(folder):
        said = Path(log).read_text(encoding="utf-8", errors="replace").strip()
        raise InputError(said.removeprefix("error: ")[-_TAIL:] or f"it ended with {process.returncode}", where="search")
    state = "running" if process.poll() is None and _has_begun(folder) else "starting"
    return {
        "name": name,
        "path": str(folder.path),
        "state": state if process.poll() is None else "ended",
        "pid": process.pid,
        "log": log,
    }


def _has_begun(folder: RunFolder) -> bool:
    """Whether the ledger has a line: rows and base are being prepared, or trials run."""
    try:
        return folder.ledger.stat().st_size > 0
    except OSError:
        return False
