"""Makes the command lines that a message tells a person to run: complete, quoted, and valid in this folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tuner.config.paths import storage_uri
from tuner.error_text import shown_path

PROGRAM = "python -m tuner"
DEFAULT_STORAGE = "runs"
"""The default of --storage-path."""
READ_AT = "TUNER_READ_AT"
"""The environment variable of a job on a cluster whose messages are read at another machine: the address at which that
one reaches the cluster's dashboard. The run folder is not there, so commands name the address in its place."""


def command_line(*words: str, storage_path: str = DEFAULT_STORAGE, address: str = "") -> str:
    """`python -m tuner WORDS`, each word quoted for a shell.

    storage_path: given as a flag if it is not the default. address: of the cluster that has the run; it takes the place
    of the storage path.
    """
    where = ["--address", address] if address else []
    if not address and storage_path != DEFAULT_STORAGE:
        where = ["--storage-path", storage_path]
    return f"{PROGRAM} {shlex.join([*words, *where])}"


def run_command_line(run: Path, *words: str) -> str:
    """The same for the run folder `run`: with its storage path. words: the command, with the run's name."""
    if address := os.environ.get(READ_AT):
        return command_line(*words, address=address)
    return command_line(*words, storage_path=shown_storage(run.parent))


def ray_command_line(*words: str) -> str:
    """`ray WORDS` of the Python that runs this program: its folder need not be on the PATH."""
    return shlex.join([shown_path(Path(sys.executable).with_name("ray")), *words])


def resume_command_line(run: Path) -> str:
    """The command line that resumes the run in the folder `run`."""
    return run_command_line(run, "submit" if os.environ.get(READ_AT) else "search", "--resume", run.name)


def shown_storage(storage: Path) -> str:
    """The folder of the runs as a user would type it here: its URI where it is in an object store."""
    return storage_uri(storage) or shown_path(storage)
