"""Imports torch and the libraries on it in 8 s of one core, where plain imports take 10 s; or keeps them out."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trainables import quiet

_ON_TORCH = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


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


@contextmanager
def without_torch() -> Iterator[None]:
    """Within it, libraries do what needs no torch, and do not import it. For rows and tokenizers; nothing is kept out
    that this process has imported before."""
    if "torch" in sys.modules or "transformers" in sys.modules:
        yield
        return
    before = set(sys.modules)
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        # They keep in mind that there is no torch, and are imported anew by whoever trains in this process
        for name in sys.modules.keys() - before:
            if name.partition(".")[0] in _ON_TORCH:
                del sys.modules[name]


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
