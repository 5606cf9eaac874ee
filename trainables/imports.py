"""A worker's imports: ten seconds of one core, eight as it is done here."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainables import quiet


@contextmanager
def heavy() -> Iterator[None]:
    """For the imports of torch and the libraries on it: they keep quiet, and nothing is done that nobody asked for."""
    quiet.before_imports()
    collects = gc.isenabled()
    gc.disable()  # of what the libraries make as they are imported nothing is garbage: 1.5 s of looking for it
    try:
        _import_bitsandbytes()
        yield
    finally:
        if collects:
            gc.enable()
    quiet.after_imports()


def _import_bitsandbytes() -> None:
    """Without torch's compiler, 1 s to import, which bitsandbytes decorates four functions with: what CPUs take for odd
    shapes alone, and CUDA never."""
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
