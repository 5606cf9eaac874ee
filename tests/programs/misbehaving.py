"""Misbehaviours inside a call of a program, each with the verdict that it must end with in every process.

A call whose process dies, that hangs, or that answers nonsense is in toy.py.
"""

from __future__ import annotations

import errno
import sys
from concurrent.futures import ThreadPoolExecutor

from tuner.contract import Fault, Fit, InputError, Reason, Verdict


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's, which is recognised by this name."""


class Unsayable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


FAULT = Fault(Reason.OUT_OF_MEMORY, "16 rows do not fit", "a smaller model", "toy GPU", Fit(4, True))

ENDS_AS: dict[str, Verdict] = {
    "raises": Verdict(Reason.ERROR, "ValueError: it broke"),
    "exits": Verdict(Reason.ERROR, "SystemExit: 3"),
    "exits_in_a_thread": Verdict(Reason.ERROR, "SystemExit: 4"),
    "interrupts": Verdict(Reason.INFRASTRUCTURE, "its process was interrupted"),
    "host_memory": Verdict(Reason.OUT_OF_MEMORY, "MemoryError: no more"),
    "gpu_memory": Verdict(Reason.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
    "says_what_fits": FAULT.verdict,
    "no_fault": Verdict(
        Reason.ERROR, "the program raised a Fault for <Reason.RUNG: 'rung'>, which is no failure of a trial"
    ),
    "input_error": Verdict(Reason.CONFIG, "train.rows: none is left\n  expected: one\n  try: another file"),
    "full_disk": Verdict(
        Reason.INFRASTRUCTURE, "no room on the disk (No space left on device: adapter)",
        "make room on the disk of the run folder",
    ),
    "import_error": Verdict(Reason.ERROR, "ImportError: libfoo.so.1"),
    "unsayable": Verdict(Reason.ERROR, "Unsayable"),
}  # fmt: skip


def misbehave(what: str) -> None:
    """Misbehaves as `what` says; returns if it is not the name of a misbehaviour."""
    match what:
        case "raises":
            raise ValueError("it broke")
        case "exits":
            sys.exit(3)
        case "exits_in_a_thread":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(sys.exit, 4).result()
        case "interrupts":
            raise KeyboardInterrupt
        case "host_memory":
            raise MemoryError("no more")
        case "gpu_memory":
            raise OutOfMemoryError("CUDA out of memory")
        case "says_what_fits":
            raise Fault.of(FAULT.verdict) from ValueError("the root of it")
        case "no_fault":
            raise Fault(Reason.RUNG, "not for a program to say")
        case "input_error":
            raise InputError("none is left", where="train.rows", expected="one", remedy="another file")
        case "full_disk":
            raise OSError(errno.ENOSPC, "No space left on device", "adapter")
        case "import_error":
            raise ImportError("libfoo.so.1")
        case "unsayable":
            raise Unsayable
