"""Whatever stands in a file that a user or a stranger hands over: an answer, or a refusal with exit code 2, at once."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.chaos.faults import Count
from tests.chaos.runs import COMMANDS, finished_run
from tests.conftest import completion_rows, message_rows, text_rows
from tests.programs import library
from tests.tuner.report import searches
from trainables.sft import SFT
from tuner.cli import run
from tuner.config import demo_path, shipped_spaces
from tuner.contract import Fault, InputError
from tuner.results import untrusted_json as strict
from tuner.results.ledger import EVENT_FIELDS

EXAMPLES = int(os.environ.get("TUNER_FUZZ", "40"))
"""Examples of each kind; `make chaos` asks for more."""
DERANDOMIZE = "TUNER_FUZZ" not in os.environ
MOST_S = 1.0
quick = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=DERANDOMIZE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from([10**400, -1, 0, 2**63, 1e308, "NaN", "\ud800", "\x1b[31m", "a\x00b", "../../etc", "rung"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def edited(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draws the bytes of a good file with a few changed, removed or inserted."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "drop"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(
                    st.binary(max_size=4) | st.sampled_from([b"[" * 3000, b"{", b"\n", b": ", b"&a *a", b"\t"])
                )
            case _:
                del data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


def answered(words: list[str], capsys: pytest.CaptureFixture[str], codes: tuple[int, ...] = (0, 2)) -> None:
    began = time.monotonic()
    code = run(words)
    took = time.monotonic() - began
    told = capsys.readouterr()
    assert code in codes and "Traceback" not in told.err, (code, told.err)
    assert code == 0 or "error: " in told.err
    assert took < MOST_S or code == 0, f"{took:.1f} s"


@quick
@given(st.binary(max_size=200) | edited(demo_path().read_bytes()))
@example(b"[" * 5000)
@example(b"a: &x [*x]")
@example("model: {model_name_or_path: \ud800}".encode("utf-8", "surrogatepass"))
def test_experiments(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Count, data: bytes) -> None:
    file = tmp_path / "search.yaml"
    file.write_bytes(data)
    answered(["plan", str(file), "--json"], capsys)
    fault("bytes of a search file, fuzzed")


@quick
@given(st.sampled_from(sorted(shipped_spaces())).flatmap(lambda name: edited(shipped_spaces()[name].read_bytes())))
def test_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Count, data: bytes) -> None:
    file = tmp_path / "space.yaml"
    file.write_bytes(data)
    answered(["spaces", str(file)], capsys)
    fault("bytes of a space, fuzzed")


@quick
@given(st.sampled_from(library.callables()), st.sampled_from(["search.space", "run.program"]))
@example("http.server:test", "search.space")
@example("antigravity:fly_away", "run.program")
def test_code_that_a_file_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Count, name: str, key: str
) -> None:
    """`plan` over the standard library; every one of its callables is named in test_importing.py."""
    section, _, setting = key.partition(".")
    file = tmp_path / "search.yaml"
    file.write_text(f'model: {{model_name_or_path: a/b}}\ndata: {{train: c/d}}\n{section}: {{{setting}: "{name}"}}\n')
    before = set(sys.modules)
    answered(["plan", str(file)], capsys, codes=(2,))
    assert name.partition(":")[0] not in set(sys.modules) - before
    fault("a callable of the standard library named by a file, fuzzed")


LEDGER = [event.to_json() for event in searches.finished().events]
KNOWN = sorted({*EVENT_FIELDS, *(name for details in strict.DETAILS.values() for name in details), "verdict", "fit"})


@st.composite
def ledgers(draw: st.DrawFn) -> bytes:
    """Draws ledgers whose lines have valid checksums and any values in their fields."""
    rows = [json.loads(line) for line in LEDGER]
    for row in rows:
        del row["sum"]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        place = row if draw(st.booleans()) or not isinstance(row.get("details"), dict) else row["details"]
        place[draw(st.sampled_from(sorted(place) or ["event"]) | st.sampled_from(KNOWN))] = draw(VALUES)
    for _ in range(draw(st.integers(0, 3))):
        row = rows.pop(draw(st.integers(0, len(rows) - 1)))
        rows.insert(draw(st.integers(0, len(rows))), row)
    return b"".join(strict.signed(json.dumps(row, separators=(",", ":"))).encode() + b"\n" for row in rows)


@quick
@given(ledgers() | edited("".join(line + "\n" for line in LEDGER).encode()) | st.binary(max_size=80))
def test_ledgers(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Count, data: bytes) -> None:
    path = tmp_path / "runs" / "first"
    if not path.exists():
        finished_run(tmp_path / "runs")
    (path / "trials.jsonl").write_bytes(data)
    for command in COMMANDS:
        answered(command.format(run=path, to=tmp_path / "out").split(), capsys)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    fault("a ledger, fuzzed")


@quick
@given(VALUES, st.sampled_from(["resolved.json", "best/manifest.json"]))
def test_json_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Count, value: Any, name: str) -> None:
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    path = finished_run(tmp_path / "runs")
    (path / name).write_text(json.dumps(value))
    for command in COMMANDS:
        answered(command.format(run=path, to=tmp_path / "out").split(), capsys)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    if name == "resolved.json":
        answered(["search", "--resume", str(path)], capsys, codes=(2,))
        answered(["export", str(path), "--merge", "--to", str(tmp_path / "out")], capsys, codes=(2,))
    fault("JSON of a run folder, fuzzed")


@quick
@given(st.sampled_from(sorted(strict.DETAILS)), st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=4))
def test_what_was_read_was_checked(kind: str, values: dict[str, Any]) -> None:
    """A line is read or refused with ValueError; what is read has the types that reports count on."""
    from tuner.results.ledger import Event

    try:
        event = Event.from_json(json.dumps({"event": kind, **values}))
    except ValueError:
        return
    assert Event.from_json(replace(event, details=dict(event.details)).to_json()).event == kind


ROWS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "text": text_rows, "completion": completion_rows, "messages": message_rows,
}  # fmt: skip
COLUMNS = st.sampled_from(["text", "prompt", "completion", "messages", "tools", "chat_template_kwargs", "x"])
TURNS = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "from", "value"]), VALUES, max_size=3)
)


@quick
@given(
    st.sampled_from(sorted(ROWS)),
    st.lists(st.tuples(st.integers(0, 5), COLUMNS, VALUES | TURNS), max_size=3),
    st.none() | edited("".join(json.dumps(row) + "\n" for row in message_rows(4)).encode()),
)
def test_rows(
    tiny_model: Path, tmp_path: Path, fault: Count, kind: str, changes: list[tuple[int, str, Any]], data: bytes | None
) -> None:
    rows = ROWS[kind](6)
    for at, column, value in changes:
        rows[at] = {**rows[at], column: value}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(data if data is not None else "".join(json.dumps(row) + "\n" for row in rows).encode())
    wanted = {"model": {"model_name_or_path": str(tiny_model)}, "data": {"train": str(file), "max_length": 48}}
    fault("rows of data, fuzzed")
    try:
        done = SFT.prepare(wanted, tmp_path / "cache")
    except (InputError, Fault) as told:
        assert str(told)
        return
    assert done.facts["train"]["label_tokens"] > 0
