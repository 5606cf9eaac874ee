"""What a call of somebody else's code came to: its value, or the verdict that stands for what it raised.

This is the only place that turns exceptions into verdicts. Every actor method and every thread body that calls a
program passes through `capture`, so that one mistake ends alike whichever process it was made in.
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
"""Out of memory as a plain RuntimeError of torch's says it."""


@dataclass(frozen=True)
class Failure:
    """Why a call has no value. traceback: of what it raised, as text. It pickles, whatever was raised."""

    verdict: Verdict
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, folder: Path | None = None) -> Failure:
        """What `error` means for the trial in which it was raised. folder: see `capture`."""
        error = _unwrapped(error)
        try:
            verdict = _verdict(error, folder)
        except Exception:  # it cannot even be put into words: its `__str__` raises
            verdict = Verdict(Reason.ERROR, type(error).__name__)
        return cls(verdict, "".join(traceback.format_exception(error)))

    @property
    def fault(self) -> Fault:
        """The verdict as an exception, to be raised where the call was made for a caller of one's own."""
        fault = Fault.of(self.verdict)
        fault.__cause__ = Elsewhere(self.traceback) if self.traceback else None
        return fault


def capture(call: Callable[[], Value], folder: Path | None = None) -> Value | Failure:
    """Calls `call`; returns its value, or a Failure for whatever it raised.

    folder: the trial's. Where an error alone does not tell whether its disk is to blame, the folder is asked.

    - Fault: its own verdict, with device and fit. One whose reason is no failure of a trial's is an error.
    - InputError: `config`.
    - A disk that is full, failing or gone (disks.py): `infrastructure`, whoever said so (OSError, shutil, safetensors,
      an InputError that was raised because of one).
    - MemoryError, and torch's errors of that meaning: `out_of_memory`. What would be smaller only a Fault can say.
    - SystemExit, and any other exception: `error`, with its name and first line.
    - KeyboardInterrupt: `infrastructure`. Somebody interrupted the process (a Ctrl-C reaches every process of a
      terminal, `ray.cancel` raises it in a task); it says nothing about the trial, which is tried again, or is
      interrupted where the search is ending.
    - An error of Ray's own (an actor or node that died, an object that was lost): `infrastructure`. One that carries
      another process's exception (RayTaskError) stands for that exception.

    It is not for the driver's main thread, where a KeyboardInterrupt is the user's word.

    One exception passes: the SystemExit that Ray raises in the main thread of a worker that is told to end, by a
    SIGTERM for example. The process must go then, and Ray tells who waits for it.
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
    """torch is not to be imported here: its exception is known by name."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(told in first_line(error) for told in _NO_MEMORY)


def _checked(fault: Fault) -> Verdict:
    """A fault's verdict, made of what the driver can read: a program may put anything into one."""
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
    """The exception that another process raised, where Ray has brought it here inside one of its own."""
    ray = sys.modules.get("ray.exceptions")
    while ray is not None and isinstance(error, ray.RayTaskError) and isinstance(error.cause, BaseException):
        cause: BaseException = error.cause
        if cause is error:
            break
        cause.__cause__ = cause.__cause__ or Elsewhere(str(error))
        error = cause
    return error
