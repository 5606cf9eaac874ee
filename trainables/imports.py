"""A worker's imports: ten seconds of one core, eight as it is done here."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainables import quiet


@contextmanager
def heavy() -> Iterator[None]:
    """Within it, torch and the libraries on it are imported: quietly, and without work that is not needed."""
    quiet.before_imports()
    collects = gc.isenabled()
    gc.disable()  # nothing that is made during imports is garbage, and searching it takes 1.5 s
    try:
        _import_bitsandbytes()
        yield
    finally:
        if collects:
            gc.enable()
    quiet.after_imports()


def _import_bitsandbytes() -> None:
    """Imports it without torch's compiler, which takes 1 s: bitsandbytes decorates four functions with it, which CPUs
    use for odd shapes only, and CUDA never."""
    name = "TORCHDYNAMO_DISABLE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import bitsandbytes  # noqa: F401
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
