"""Calls a program's class methods in a process of their own, so that the driver never imports torch.

Run as `python -m tuner.subprocess_call REQUEST ANSWER`; both are JSON files.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tuner.contract import Fault, InputError, Program, Reason, ScoreRequest, Tell, load_program, module_command, silent
from tuner.disks import replace_file
from tuner.failures import Failure, capture
from tuner.redaction import RedactedStream, open_log

_LOOK_S = 0.2
"""Seconds between two looks at how far the call is, and between two times that it says so."""


class SubprocessProgram:
    """A call of one method of a program, begun in another process. arguments: JSON values. log: the file that takes
    what the process prints."""

    def __init__(self, program: str, method: str, *arguments: Any, log: Path) -> None:
        self._log, self._method = log, method
        # In the run's folder, so that a driver that is killed leaves no files in the machine's temporary folder
        self._folder = tempfile.TemporaryDirectory(prefix=".call-", dir=log.parent)
        request, self._answer = Path(self._folder.name, "request.json"), Path(self._folder.name, "answer.json")
        self._told = Path(self._folder.name, "told")
        asked = {"program": program, "method": method, "arguments": arguments}
        asked["told"] = str(self._told)
        request.write_text(json.dumps(asked))
        with open_log(log) as output:
            self._process = subprocess.Popen(
                module_command("tuner.subprocess_call", str(request), str(self._answer)),
                stdin=subprocess.PIPE,  # closed when the driver ends, at which the process ends too
                stdout=output,
                stderr=output,
                start_new_session=True,  # a signal to the driver's process group is for the driver alone
            )

    def result(self, tell: Tell = silent) -> Any:
        """Waits, and returns what the method returned, a dataclass as a dict. tell: gets how far the method is, and ""
        at its end.

        Raises InputError where the method did, and for any other error the Fault of its verdict (failures.py). A Fault
        without a remedy gets the log as one.
        """
        self._wait(tell)
        if not self._answer.exists():
            died = f"the process that was to {self._method} ended with code {self._process.returncode}"
            raise Fault(Reason.INFRASTRUCTURE, died, f"see {self._log}")
        answer = self._answer.read_text()
        self.close()
        return read(answer, self._log)

    def _wait(self, tell: Tell) -> None:
        last = ""
        while True:
            try:
                self._process.wait(_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                with suppress(OSError):  # nothing is told yet
                    if (text := self._told.read_text(encoding="utf-8")) != last:
                        tell(last := text)
        if last:
            tell("")

    def close(self) -> None:
        """Kills the process and what it has started, if they still run, and removes their files. May be called
        twice."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._folder.cleanup()


def _main(request_file: str, answer_file: str) -> None:
    _end_with_the_driver()
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)  # type: ignore[assignment]
    request = json.loads(Path(request_file).read_text())
    answer = carry_out(request)
    replace_file(Path(answer_file), answer)


def carry_out(request: Mapping[str, Any]) -> str:
    """Makes the call that is asked for; returns the answer as JSON, also where it raised. A traceback goes to standard
    error."""
    answer = capture(lambda: _answer(request))
    if isinstance(answer, Failure):
        sys.stderr.write(answer.traceback)
        return json.dumps({"kind": "fault", "value": answer.fault.to_dict()})
    return answer


def read(answer: str, log: Path) -> Any:
    """The value in an answer. Raises what `SubprocessProgram.result` raises."""
    told = json.loads(answer)
    if told["kind"] == "value":
        return told["value"]
    if told["kind"] == "input_error":
        raise InputError.from_dict(told["value"])
    fault = Fault.from_dict(told["value"])
    fault.remedy = fault.remedy or f"see {log}"
    raise fault


def _answer(request: Mapping[str, Any]) -> str:
    """What the method returned, or its InputError, as JSON. Other errors become a Fault in `carry_out`."""
    try:
        tell = _Teller(Path(request["told"])) if "told" in request else silent
        value = _call(load_program(request["program"]), request["method"], request["arguments"], tell)
    except InputError as error:
        return json.dumps({"kind": "input_error", "value": error.to_dict()})
    return json.dumps({"kind": "value", "value": asdict(value) if is_dataclass(value) else value})  # type: ignore[arg-type]


class _Teller:
    """Writes how far a call is into a file, where the driver reads it."""

    def __init__(self, file: Path) -> None:
        self._file, self._next = file, float("-inf")

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_S
        beside = self._file.with_suffix(".new")
        with suppress(OSError):  # a full disk ends the call by what it has to write
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._file)


def _call(program: type[Program], method: str, arguments: Sequence[Any], tell: Tell) -> Any:
    """Calls one of the class methods that may import anything. Raises ValueError for any other."""
    match method, arguments:
        case "prepare", (settings, cache):
            told: dict[str, Any] = {"tell": tell} if "tell" in inspect.signature(program.prepare).parameters else {}
            return program.prepare(settings, Path(cache), **told)
        case "pin", (settings,):
            return program.pin(settings)
        case "made_of", (settings,):
            return program.made_of(settings)
        case "foreign_code", (settings,):
            return program.foreign_code(settings)
        case "merge", (settings, adapter_folder, to):
            return program.merge(settings, adapter_folder, to)
        case "look_at_base", (settings,):
            return program.look_at_base(settings)
        case "serve", (settings, adapter_folder, to, server, name, merge, compare):
            return program.serve(settings, adapter_folder, to, server, name, merge, compare)
        case "score", (settings, asked):
            return program.score(settings, ScoreRequest.from_dict(asked), tell)
    raise ValueError(f"{method} is not called in a process of its own")


def _end_with_the_driver() -> None:
    """Has a thread kill this process, and all that it has started, as soon as the pipe from the driver is closed."""
    pipe = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
