"""Turns what a call of a program raised into a verdict.

Nothing else turns exceptions into verdicts. Every actor method and every thread body that calls a program does it
through `capture`, so the same error has the same verdict in whichever process it is raised.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tuner.contract import Elsewhere, Fault, Fit, InputError, Reason, Status, Verdict
from tuner.disks import trouble_of
from tuner.error_text import MOST_SAID, first_line, named_line

Value = TypeVar("Value")

_NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of the text of torch's plain RuntimeErrors that mean out of memory."""


@dataclass(frozen=True)
class Failure:
    """Stands for the value of a call that raised. It pickles, whatever was raised."""

    verdict: Verdict
    traceback: str = ""
    """Of what was raised, as text."""

    @classmethod
    def of(cls, error: BaseException, folder: Path | None = None) -> Failure:
        """What `error` means for the trial in which it was raised. folder: see `capture`."""
        error = _unwrapped(error)
        try:
            verdict = _verdict(error, folder)
        except Exception:  # its `__str__` raises
            verdict = Verdict(Reason.ERROR, type(error).__name__)
        return cls(verdict, "".join(traceback.format_exception(error)))

    @property
    def fault(self) -> Fault:
        """The verdict as an exception, to be raised in the process that receives the Failure."""
        fault = Fault.of(self.verdict)
        fault.__cause__ = Elsewhere(self.traceback) if self.traceback else None
        return fault


def capture(call: Callable[[], Value], folder: Path | None = None) -> Value | Failure:
    """Calls `call`; returns its value, or a Failure for whatever it raised.

    folder: the trial's. It is tried where an error alone does not tell whether the disk is the cause (disks.py).

    - Fault: its own verdict, with device and fit. A Fault whose reason is no failure of a trial becomes `error`.
    - InputError: `config`.
    - A disk that is full, failing or gone: `infrastructure`, whichever error tells so (OSError, shutil, safetensors, an
      InputError with such a cause).
    - MemoryError, and torch's errors of that meaning: `out_of_memory`. Only a Fault can name a smaller arrangement.
    - SystemExit, and any other exception: `error`, with its name and first line.
    - KeyboardInterrupt: `infrastructure`. Somebody interrupted the process (a Ctrl-C reaches every process of a
      terminal, `ray.cancel` raises it in a task); it says nothing about the trial, which is tried again, or is
      interrupted where the search is ending.
    - An error of Ray's own (an actor or node that died, an object that was lost): `infrastructure`. One that carries
      another process's exception (RayTaskError) stands for that exception.

    Not to be called in the driver's main thread, where a KeyboardInterrupt is the user's.

    One exception is raised again: the SystemExit that Ray raises in the main thread of a worker that is told to end, by
    a SIGTERM for example. That process must end, and Ray tells the callers that wait for it.
    """
    try:
        return call()
    except BaseException as error:
        if hasattr(error, "ray_terminate_msg") and threading.current_thread() is threading.main_thread():
            raise
        return Failure.of(error, folder)


def _verdict(error: BaseException, folder: Path | None) -> Verdict:
    if isinstance(error, Fault):
        return _checked(error)
    if isinstance(error, KeyboardInterrupt):
        return Verdict(Reason.INFRASTRUCTURE, "its process was interrupted")
    if isinstance(error, SystemExit):
        return Verdict(Reason.ERROR, f"SystemExit: {error.code}"[:MOST_SAID])
    if (trouble := trouble_of(error, None if isinstance(error, InputError) else folder)) is not None:
        return trouble.verdict
    if isinstance(error, InputError):
        return Verdict(Reason.CONFIG, str(error))
    told = named_line(error)
    if type(error).__module__.partition(".")[0] == "ray":
        return Verdict(Reason.INFRASTRUCTURE, told)
    return Verdict(Reason.OUT_OF_MEMORY if _is_out_of_memory(error) else Reason.ERROR, told)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory. torch's exception is known by its name, because torch is not imported
    here."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(told in first_line(error) for told in _NO_MEMORY)


def _checked(fault: Fault) -> Verdict:
    """A fault's verdict with values of the right types only: a program may put anything into a Fault."""
    try:
        reason = Reason(fault.reason)
        known = reason.status is Status.FAILED
    except ValueError:
        known = False
    if not known:
        return Verdict(Reason.ERROR, f"the program raised a Fault for {fault.reason!r}, which is no failure of a trial")
    fit = fault.fit if isinstance(fault.fit, Fit) else None
    return Verdict(reason, str(fault.message), str(fault.remedy), str(fault.device), fit)


def _unwrapped(error: BaseException) -> BaseException:
    """The exception that another process raised, where Ray has wrapped it in one of its own; else `error`."""
    ray = sys.modules.get("ray.exceptions")
    while ray is not None and isinstance(error, ray.RayTaskError) and isinstance(error.cause, BaseException):
        cause: BaseException = error.cause
        if cause is error:
            break
        cause.__cause__ = cause.__cause__ or Elsewhere(str(error))
        error = cause
    return error
