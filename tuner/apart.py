"""A program's class methods called in a process of their own, so that the driver never imports torch.

Run as `python -m tuner.apart REQUEST ANSWER`; both are JSON files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tuner.contract import Fault, InputError, Reason, load_program
from tuner.redaction import RedactedStream


class Apart:
    """A call under way. arguments: JSON values. log: a file that takes what the process prints."""

    def __init__(self, program: str, method: str, *arguments: Any, log: Path) -> None:
        self._log = log
        # In the run's folder: a driver that is killed leaves nothing in the temporary folder of the machine
        self._folder = tempfile.TemporaryDirectory(prefix=".apart-", dir=log.parent)
        request, self._answer = Path(self._folder.name, "request.json"), Path(self._folder.name, "answer.json")
        request.write_text(json.dumps({"program": program, "method": method, "arguments": arguments}))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuner.apart", str(request), str(self._answer)],
                stdin=subprocess.PIPE,  # its end says that the driver is gone
                stdout=output,
                stderr=output,
                start_new_session=True,  # a signal to the driver's group is for the driver to answer
            )

    def result(self) -> Any:
        """Waits, and returns what the method returned, a dataclass as a dict.

        Raises InputError or Fault as the method did, and RuntimeError for anything else, which names the log.
        """
        self._process.wait()
        if not self._answer.exists():
            raise RuntimeError(f"the process ended with code {self._process.returncode}; see {self._log}")
        answer = json.loads(self._answer.read_text())
        self.close()
        match answer["kind"]:
            case "value":
                return answer["value"]
            case "input_error":
                raise InputError(**answer["value"])
            case "fault":
                raise Fault(Reason(answer["value"]["reason"]), answer["value"]["message"], answer["value"]["remedy"])
            case _:
                raise RuntimeError(f"{answer['value']}; see {self._log}")

    def close(self) -> None:
        """Ends the process if it still runs, and clears up. May be called twice."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has started
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._folder.cleanup()


def _main(request_file: str, answer_file: str) -> None:
    _end_with_the_driver()
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)  # type: ignore[assignment]
    request = json.loads(Path(request_file).read_text())
    answer: dict[str, Any]
    try:
        value = getattr(load_program(request["program"]), request["method"])(*request["arguments"])
        answer = {"kind": "value", "value": asdict(value) if is_dataclass(value) else value}  # type: ignore[arg-type]
    except InputError as error:
        parts = {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}
        answer = {"kind": "input_error", "value": parts}
    except Fault as fault:
        parts = {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy}
        answer = {"kind": "fault", "value": parts}
    except Exception as error:
        traceback.print_exc()
        answer = {"kind": "error", "value": f"{type(error).__name__}: {error}"}
    beside = Path(answer_file + ".new")
    beside.write_text(json.dumps(answer))
    beside.replace(answer_file)


def _end_with_the_driver() -> None:
    """Ends this process, and all that it has started, as soon as the pipe from the driver has an end."""
    pipe = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
