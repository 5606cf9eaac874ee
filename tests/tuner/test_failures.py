"""One table of what calls raise, with the verdict that each must become in every process."""

from __future__ import annotations

import errno
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from tuner.contract import Elsewhere, Fault, Fit, InputError, Reason, Verdict
from tuner.failures import Failure, capture


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's, which is recognised by this name."""


def raised(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def from_another_process(error: Exception) -> BaseException:
    """An exception as `ray.get` raises what a task raised."""
    told = ray.exceptions.RayTaskError("step", f"Traceback: {error}", error, proctitle="x", pid=1, ip="127.0.0.1")
    return told.as_instanceof_cause()


FULL = OSError(errno.ENOSPC, "No space left on device", "adapter")
WHOLE = Verdict(Reason.OUT_OF_MEMORY, "too large", "a smaller model", "gpu", Fit(2, True))


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (ValueError("\nboom\nmore"), Reason.ERROR, "ValueError: boom"),
        (ValueError(), Reason.ERROR, "ValueError"),
        (Silent(), Reason.ERROR, "Silent"),
        (ImportError("libfoo.so.1"), Reason.ERROR, "ImportError: libfoo.so.1"),
        (SystemExit(3), Reason.ERROR, "SystemExit: 3"),
        (SystemExit(), Reason.ERROR, "SystemExit: None"),
        (GeneratorExit(), Reason.ERROR, "GeneratorExit"),
        (KeyboardInterrupt(), Reason.INFRASTRUCTURE, "its process was interrupted"),
        (MemoryError(), Reason.OUT_OF_MEMORY, "MemoryError"),
        (OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
        (RuntimeError("CUDA error: out of memory"), Reason.OUT_OF_MEMORY, "RuntimeError: CUDA error: out of memory"),
        (FULL, Reason.INFRASTRUCTURE, "no room on the disk (No space left on device: adapter)"),
        (InputError("bad", where="here"), Reason.CONFIG, "here: bad"),
        (Fault.of(WHOLE), Reason.OUT_OF_MEMORY, "too large"),
        (Fault(Reason.DATA, ValueError("rows")), Reason.DATA, "rows"),  # type: ignore[arg-type]
        (Fault(Reason.BUDGET, "x"), Reason.ERROR, "the program raised a Fault for <Reason.BUDGET: 'budget'>, which is "
         "no failure of a trial"),
        (Fault("vram", "x"), Reason.ERROR, "the program raised a Fault for 'vram', which is no failure of a trial"),  # type: ignore[arg-type]
        (ray.exceptions.ObjectLostError("1", "owner", "site"), Reason.INFRASTRUCTURE, None),
        (ray.exceptions.OutOfMemoryError("the node's memory is full"), Reason.INFRASTRUCTURE, None),
        (from_another_process(MemoryError()), Reason.OUT_OF_MEMORY, "MemoryError"),
        (from_another_process(InputError("bad", where="here")), Reason.CONFIG, "here: bad"),
        (from_another_process(TypeError("cannot pickle")), Reason.ERROR, "TypeError: cannot pickle"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_what_an_exception_stands_for(error: BaseException, reason: Reason, message: str | None) -> None:
    failure = capture(raised(error))
    assert isinstance(failure, Failure)
    assert failure.verdict.reason is reason
    assert message is None or failure.verdict.message == message
    assert "Traceback" in failure.traceback
    assert pickle.loads(pickle.dumps(failure)) == failure, "it travels, whatever was raised"


def test_a_value_is_handed_through() -> None:
    assert capture(lambda: 3) == 3


def test_a_call_that_takes_its_own_thread_with_it_is_answered_all_the_same() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(capture(raised(_told_to_end()))))
    thread.start()
    thread.join()
    assert found[0].verdict.reason is Reason.ERROR


def test_a_worker_that_is_told_to_end_ends() -> None:
    with pytest.raises(SystemExit):
        capture(raised(_told_to_end()))


def _told_to_end() -> SystemExit:
    """An exception as Ray's handler of SIGTERM raises it."""
    from ray._raylet import raise_sys_exit_with_custom_error_message

    try:
        raise_sys_exit_with_custom_error_message("The process receives a SIGTERM.", exit_code=1)
    except SystemExit as leaving:
        return leaving


def test_the_folder_is_asked_where_the_error_does_not_tell(tmp_path: Path) -> None:
    error = RuntimeError("Parent directory does not exist.")
    whole, gone = capture(raised(error), tmp_path), capture(raised(error), tmp_path / "gone")
    assert isinstance(whole, Failure) and whole.verdict.reason is Reason.ERROR
    assert isinstance(gone, Failure) and gone.verdict.reason is Reason.INFRASTRUCTURE


def _fault() -> Fault:
    try:
        raise ValueError("the root of it")
    except ValueError as error:
        fault = Fault.of(WHOLE)
        fault.__cause__ = error
        return fault


def by_json(fault: Fault) -> Fault:
    return Fault.from_dict(json.loads(json.dumps(fault.to_dict())))


def by_pickle(fault: Fault) -> Fault:
    return pickle.loads(pickle.dumps(fault))


def by_failure(fault: Fault) -> Fault:
    return pickle.loads(pickle.dumps(Failure.of(fault))).fault


@pytest.mark.parametrize("way", [by_json, by_pickle, by_failure])
def test_a_fault_loses_nothing_on_its_way(way: Callable[[Fault], Fault]) -> None:
    there = way(way(_fault()))
    assert there.verdict == WHOLE
    assert isinstance(there.__cause__, Elsewhere) and "ValueError: the root of it" in str(there.__cause__)


def test_an_input_error_loses_nothing_on_its_way() -> None:
    error = InputError("bad", where="here", expected="good", remedy="mend it")
    assert str(InputError.from_dict(json.loads(json.dumps(error.to_dict())))) == str(error)
