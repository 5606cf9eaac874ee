"""Imports torch and the libraries on it in 8 s of one core; plain imports take 10 s."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainables import quiet


@contextmanager
def heavy() -> Iterator[None]:
    """Within it, the caller imports torch and the libraries on it: without their log lines and without garbage
    collection."""
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
