"""Data and tokenizer made ready once a search, in a process of its own, so that the driver never imports torch.

Run as `python -m tuner.execution.prepare REQUEST ANSWER`: both are JSON files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner.contract import Fault, InputError, Preparation, Reason, load_program


class Preparing:
    """A preparation under way. `result` waits for it."""

    def __init__(self, program: str, settings: Mapping[str, Any], cache: Path, log: Path) -> None:
        self._log = log
        self._answer = cache / "answer.json"
        self._answer.unlink(missing_ok=True)
        request = cache / "request.json"
        request.write_text(json.dumps({"program": program, "settings": settings, "cache": str(cache)}))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuner.execution.prepare", str(request), str(self._answer)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def result(self) -> Preparation:
        """Raises InputError or Fault as the program did, and RuntimeError where its process died."""
        self._process.wait()
        if not self._answer.exists():
            raise RuntimeError(f"preparing the data ended with code {self._process.returncode}; see {self._log}")
        answer = json.loads(self._answer.read_text())
        match answer["kind"]:
            case "preparation":
                values = answer["value"]
                return Preparation(**{**values, "notes": tuple(values["notes"])})
            case "input_error":
                raise InputError(**answer["value"])
            case "fault":
                raise Fault(Reason(answer["value"]["reason"]), answer["value"]["message"], answer["value"]["remedy"])
            case _:
                raise RuntimeError(f"preparing the data failed: {answer['value']}; see {self._log}")

    def cancel(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _main(request_file: str, answer_file: str) -> None:
    request = json.loads(Path(request_file).read_text())
    try:
        program = load_program(request["program"])
        preparation = program.prepare(request["settings"], Path(request["cache"]))
        answer: dict[str, Any] = {"kind": "preparation", "value": asdict(preparation)}
    except InputError as error:
        value = {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}
        answer = {"kind": "input_error", "value": value}
    except Fault as fault:
        value = {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy}
        answer = {"kind": "fault", "value": value}
    except Exception as error:
        traceback.print_exc()
        answer = {"kind": "error", "value": f"{type(error).__name__}: {error}"}
    beside = Path(answer_file + ".new")
    beside.write_text(json.dumps(answer))
    beside.replace(answer_file)


if __name__ == "__main__":
    _main(*sys.argv[1:])
