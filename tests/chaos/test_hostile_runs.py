"""A run folder from a stranger: reading it runs none of its code, follows no link, and shows no escape codes.

More than 400 lines, because every test looks at the one folder that the fixture `path` makes.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Count
from tests.chaos.runs import COMMANDS, finished_run, look, tuner, write_ledger
from tests.tuner.report import searches
from tuner.cli import run
from tuner.results.adapters import checked_manifest, write_manifest
from tuner.results.ledger import Event, Kind

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\x1b]8;;http://evil\x1b\\\u202eoff\ud800\r[bold]mark[/bold]\x00\x7f"


@pytest.fixture(autouse=True)
def _counted(fault: Count) -> None:
    fault("a hostile run folder")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return finished_run(tmp_path / "runs")


def doctored(path: Path, change: Any) -> None:
    """Writes the ledger of a finished search with every event changed by `change`, and with valid checksums."""
    write_ledger(path, [change(event) for event in searches.finished().events])


class Mine:
    """Makes the folder `mark` when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def test_pickles_are_never_read(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = pickle.dumps(Mine(str(tmp_path / "executed")))
    for name in ("tune/tuner.pkl", "best/adapter_model.bin", "best/training_args.bin", "study.journal", ".lock",
                 "resolved.pkl", "data/train.pkl", "adapters/0001/adapter/adapter_model.bin"):  # fmt: skip
        (path / name).write_bytes(mine)
    codes = look(path, tmp_path / "out", within=(0,))
    assert len(codes) == len(COMMANDS) and not (tmp_path / "executed").exists()
    exported = {p.name for p in (tmp_path / "out" / "6").iterdir()}
    assert "adapter_model.bin" not in exported and "adapter_model.safetensors" in exported
    assert capsys.readouterr().err.count("Traceback") == 0


PLANTED = "from pathlib import Path\nPath('executed').touch()\nclass Evil: pass\n"


@pytest.mark.parametrize("place", ["runs/first", "runs/first/best"])
def test_a_program_planted_beside_it_is_not_run(
    path: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place / "planted.py").write_text(PLANTED)
    program = f"{place.replace('/', '.')}.planted:Evil"
    resolved = json.loads((path / "resolved.json").read_text())
    del resolved["about"]
    resolved["run"]["program"] = program
    (path / "resolved.json").write_text(json.dumps(resolved))
    for name in ("experiment.yaml", "best/train.yaml"):
        (path / name).write_text(
            f'run: {{program: "{program}"}}\nsearch: {{space: "{program[:-4]}f", num_trials: 1}}\n'
        )
    write_manifest(path / "best", {"trial": 1})
    for words in (
        ["status", "first"],
        ["show", "first", "1"],
        ["export", "first", "--to", "out"],
        ["export", "first", "--to", "merged", "--merge"],
        ["plan", "runs/first/experiment.yaml"],
        ["plan", "runs/first/best/train.yaml"],
        ["plan", "--program", program],
        ["plan", "--model", "a/b", "--data", "c/d", "--space", f"{program[:-4]}f"],
        ["spaces", f"{program[:-4]}f"],
    ):
        done = tuner(*words, cwd=tmp_path)
        assert done.returncode == (0 if words[0] in ("status", "show") or "out" in words else 2), done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert not (tmp_path / "executed").exists(), words
        if done.returncode and "--merge" not in words:
            assert b"code out of the run folder" in done.stderr, done.stderr


MORE = ["pty:spawn", "os:abort", "builtins:breakpoint", "antigravity:fly", "this:s", "turtle:mainloop", "evil:evil"]
STRANGERS = ["http.server:test", "evil", *(pytest.param(code, marks=pytest.mark.chaos) for code in MORE)]


@pytest.mark.parametrize("code", STRANGERS)
def test_a_search_file_from_a_stranger_is_looked_at_and_not_run(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder as it was downloaded: search.yaml, and code beside it."""
    monkeypatch.delenv("TUNER_ALLOW_MODULES")
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('executed').touch()\ndef evil(trial): ...\n")
    program = code == "evil"
    named = 'run: {program: "evil:evil"}' if program else f'search: {{space: "{code}"}}'
    (tmp_path / "search.yaml").write_text(f"model: {{model_name_or_path: a/b}}\ndata: {{train: c/d}}\n{named}\n")
    for words in (["plan"], ["submit", "--dry-run", "--storage-path", "/shared", "--name", "x"]):
        done = tuner(words[0], "search.yaml", *words[1:], cwd=tmp_path, timeout=30)
        assert done.returncode == (0 if code == "evil:evil" else 2), done.stderr.decode()
        told = (done.stderr + done.stdout).decode()
        assert "Traceback" not in told and not (tmp_path / "executed").exists()
        assert ("would be run" if program else "evil.py" if code == "evil:evil" else "standard library") in told
    done = tuner("search", "search.yaml", cwd=tmp_path, timeout=30) if code.startswith("http") else None
    assert done is None or done.returncode == 2


def test_a_folder_full_of_modules_takes_no_librarys_place(tmp_path: Path) -> None:
    """`python -m` looks into the current folder first: a stranger's json.py there would be run by any command."""
    for name in ("json", "click", "yaml", "signal", "pydantic", "optuna", "subprocess", "queue"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    (tmp_path / "spaces.py").write_text(
        "def mine(trial): return {'learning_rate': trial.suggest_float('learning_rate', 1e-5, 1e-3)}\n"
    )
    words = ["--model", "a/b", "--data", "c/d", "--space", "spaces:mine"]
    for command in (["plan", *words, "--json"], ["status", "first"], ["spaces"]):
        done = tuner(*command, cwd=tmp_path)
        assert done.returncode == (2 if command[0] == "status" else 0), done.stderr.decode()
        assert not (tmp_path / "executed").exists(), command


def test_a_merge_wants_the_strangers_program_and_code_named_again(path: Path, tmp_path: Path) -> None:
    resolved = json.loads((path / "resolved.json").read_text())
    resolved["model"] |= {"trust_remote_code": True, "model_revision": "abc"}
    (path / "resolved.json").write_text(json.dumps(resolved))
    done = tuner("export", "first", "--to", "out", "--merge", cwd=tmp_path)
    assert done.returncode == 2 and b"--trust-remote-code" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.chaos
@pytest.mark.parametrize("link", ["logs", "logs/export.log"])
def test_a_merge_writes_nothing_through_a_link(path: Path, tmp_path: Path, link: str) -> None:
    """Its words would be appended to whatever file the stranger chose."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "export.log").write_text("mine alone\n")
    if link == "logs":
        (path / "logs").rmdir()
        (path / "logs").symlink_to(outside)
    else:
        (path / link).symlink_to(outside / "export.log")
    resolved = json.loads((path / "resolved.json").read_text())
    resolved["model"]["model_name_or_path"] = str(tmp_path / "no-model")
    (path / "resolved.json").write_text(json.dumps(resolved))
    assert run(["export", "first", "--to", "out", "--merge"]) == 2
    assert (outside / "export.log").read_text() == "mine alone\n"


def test_code_that_comes_with_a_base_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "org/name", "--data", "org/data", "--set", "model.trust_remote_code=true"]
    assert run(["plan", *words]) == 2
    kernel = ["--set", "model.attn_implementation=kernels-community/flash-attn2"]
    assert run(["plan", *words[:4], *kernel]) == 2
    assert "attn_implementation names code on the hub" in capsys.readouterr().err
    assert run(["plan", *words, "--model-revision", "0a1b2c", *kernel]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "code that comes with org/name at revision 0a1b2c runs in every worker" in told


def test_links_lead_nowhere(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine alone")
    best = path / "best"
    for name, target in (("link", secret), ("circle", best / "circle"), ("gone", tmp_path / "gone"), ("up", tmp_path)):
        (best / name).symlink_to(target)
    os.mkfifo(best / "pipe")
    look(path, tmp_path / "out", within=(0,))
    exported = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert exported and all("mine alone" not in p.read_text(errors="replace") for p in exported)
    said = json.loads((best / "manifest.json").read_text())
    said["files"]["link"] = said["files"]["README.md"]
    write = {k: v for k, v in said.items() if k not in ("files", "sha256")}
    for name in ("link", "../../../secret", "/etc/passwd", "up/secret", "pipe"):
        text = json.dumps({**write, "files": {name: "0" * 64}})
        (best / "manifest.json").write_text(text)
        assert run(["export", str(path), "--to", str(tmp_path / "other")]) == 2
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "adapter", ["../../../etc", "/etc", "..", ".", "adapters/../../..", "adapters/0001/out", "a\x00b"]
)
def test_an_adapter_outside_of_the_run_is_none(path: Path, tmp_path: Path, adapter: str) -> None:
    """The winner's adapter is what a resume copies to `best/`."""
    from tuner.results.adapters import write_best
    from tuner.results.folder import RunFolder

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine alone")
    (path / "adapters/0001/out").symlink_to(outside)

    def change(event: Event) -> Event:
        if event.event is not Kind.EVALUATION:
            return event
        return replace(event, details={**event.details, "adapter": adapter})

    doctored(path, change)
    look(path, tmp_path / "out", within=(0,))
    before = sorted(p.name for p in (path / "best").iterdir())
    folder = RunFolder(path)
    assert write_best(folder, folder.record(), train={}, resolved={}) is None
    assert sorted(p.name for p in (path / "best").iterdir()) == before


def test_a_link_inside_an_adapter_is_not_copied(path: Path, tmp_path: Path) -> None:
    from tuner.results.adapters import write_best
    from tuner.results.folder import RunFolder

    (tmp_path / "secret").write_text("mine alone")
    adapter = path / "adapters/0001/adapter"
    (adapter / "adapter_model.safetensors").write_bytes(b"1")
    (adapter / "secret").symlink_to(tmp_path / "secret")
    (adapter / "loop").symlink_to(adapter)
    os.mkfifo(adapter / "pipe")
    doctored(path, lambda e: replace(e, details={**e.details, "adapter": "adapters/0001/adapter"})
             if e.event is Kind.EVALUATION else e)  # fmt: skip
    folder = RunFolder(path)
    assert write_best(folder, folder.record(), train={}, resolved={}) == path / "best"
    assert set(checked_manifest(path / "best")["files"]) == {"README.md", "adapter_model.safetensors", "train.yaml"}


def test_a_lock_that_is_a_link_empties_nothing(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine alone")
    (path / ".lock").symlink_to(precious)
    look(path, tmp_path / "out", within=(0,))
    assert run(["search", "--resume", str(path)]) == 2
    assert ".lock: cannot be written" in capsys.readouterr().err
    assert precious.read_text() == "mine alone"


def strange_texts(event: Event) -> Event:
    """Makes a run folder with escape codes in every text."""
    details = {
        name: ESCAPES + value if isinstance(value, str) else [ESCAPES] if name == "notes" else value
        for name, value in event.details.items()
    }
    params = event.params and {f"{name}{ESCAPES}": ESCAPES for name in event.params}
    if event.event is Kind.ENDED:
        details |= {"message": ESCAPES, "remedy": ESCAPES, "traceback": f"Traceback\n  {ESCAPES}\n"}
    if event.event is Kind.SETUP:
        details |= {f"x{ESCAPES}": ESCAPES, "list": [ESCAPES]}
    return replace(event, details=details, params=params)


def test_nothing_that_steers_a_terminal_is_shown(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctored(path, strange_texts)
    resolved = json.loads((path / "resolved.json").read_text())
    resolved["about"]["labels"] = {f"learning_rate{ESCAPES}": ESCAPES, "x": 7}
    (path / "resolved.json").write_text(json.dumps(resolved))
    look(path, tmp_path / "out", within=(0,))
    for place in (tmp_path, path):
        assert run(["status", f"{place}/{ESCAPES}"]) == 2
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        steering = {c for c in text if not c.isprintable() and c not in "\n\t"}
        assert not steering, f"{steering!r}"
    assert "[bold]mark[/bold]" in captured.out, "what looks like markup is shown as it is"


def test_markup_stays_text_on_a_terminal(path: Path, tmp_path: Path) -> None:
    import pty
    import subprocess
    import sys

    from tests.chaos.runs import ROOT

    doctored(path, strange_texts)
    reader, writer = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "status", "first"], cwd=tmp_path, env=environment, stdout=writer, stderr=writer
    )
    os.close(writer)
    shown = b""
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
    assert process.wait(timeout=30) == 0
    assert b"[bold]mark" in shown and b"\x1b[31mred" not in shown and b"\x1b]" not in shown and b"\xc2\x9b" not in shown


NUMBERS = [float("nan"), float("inf"), -float("inf"), -1, 0, -(2**53), 2**53, 1e308, -1e308, 5e-324, 1e-300]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_make_no_sense(path: Path, tmp_path: Path, number: float) -> None:
    whole = int(number) if isinstance(number, int) else None

    def change(event: Event) -> Event:
        more: dict[str, Any] = {}
        details = dict(event.details)
        if event.event is Kind.EVALUATION:
            more = {"metrics": {"eval_loss": float(number)}}
            details |= {"train_loss": number, "seconds": number}
            if whole is not None:
                more |= {"step": whole, "tokens": whole}
                details |= {"memory": whole, "resource": whole}
        if event.event is Kind.SETUP and whole is not None:
            details |= {"max_steps": whole, "trainable_parameters": whole, "total_parameters": whole}
        if event.event is Kind.SEARCH and whole is not None and whole >= 0:
            details |= {"num_trials": whole, "workers": whole}
        params = event.params and dict.fromkeys(event.params, number)
        return replace(event, details=details, params=params, **more)

    doctored(path, change)
    began = time.monotonic()
    look(path, tmp_path / "out", within=(0,))
    assert time.monotonic() - began < 5


LINES = {
    "deep": "[" * 100_000,
    "deep params": '{"event":"started","number":1,"params":' + '{"a":' * 900 + "1" + "}" * 901,
    "long number": '{"event":"started","number":' + "1" * 5000 + "}",
    "large number": '{"event":"started","number":' + "1" * 400 + "}",
    "negative": '{"event":"started","number":-1}',
    "true": '{"event":"started","number":true}',
    "text": '{"event":"evaluation","number":0,"step":"seven"}',
    "list": '{"event":"evaluation","number":0,"eval_loss":[4]}',
    "metrics": '{"event":"evaluation","number":0,"metrics":{"eval_loss":[4]}}',
    "objectives": '{"event":"search","details":{"objectives":[{"name":"a","direction":"up"}]}}',
    "no objectives": '{"event":"search","details":{"objectives":[]}}',
    "time": '{"event":"note","time":1e300}',
    "no time": '{"event":"note","time":"NaN"}',
    "details": '{"event":"search","details":[1]}',
    "name": '{"event":"search","details":{"name":["x"]}}',
    "facts": '{"event":"prepared","details":{"facts":"none"}}',
    "notes": '{"event":"prepared","details":{"notes":[[1]]}}',
    "status": '{"event":"ended","number":0,"attempt":1,"status":"won"}',
    "reason": '{"event":"ended","number":0,"attempt":1,"status":"failed","reason":"magic"}',
    "event": '{"event":"exploded"}',
    "event type": '{"event":{}}',
    "params": '{"event":"started","number":1,"params":[1]}',
    "array": "[]",
    "not UTF-8": b"\xff\xfe",
    "NUL": b"\x00" * 100,
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_that_cannot_be_is_named(
    path: Path, tmp_path: Path, line: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether before the checksums or among them."""
    ledger = path / "trials.jsonl"
    good = [json.dumps({k: v for k, v in json.loads(row).items() if k != "sum"}) for row in ledger.open()]
    for rows in (good, ledger.read_text().splitlines()):
        raw = [row.encode() for row in rows]
        raw[3:3] = [line.encode() if isinstance(line, str) else line]
        ledger.write_bytes(b"\n".join(raw) + b"\n")
        for words in (["status", "first"], ["show", "first", "0"], ["search", "--resume", "first"]):
            assert run(words) == 2
            told = capsys.readouterr()
            assert f"{ledger}, line 4: not a ledger event" in told.err and "Traceback" not in told.err
            assert len(told.err) < 1000


def test_files_that_are_none(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pipes, devices, folders and huge files where JSON should be."""
    resolved, manifest = path / "resolved.json", path / "best" / "manifest.json"
    for place in (resolved, manifest):
        for make in (os.mkfifo, os.mkdir, endless, circle, huge):
            place.unlink() if place.is_file() or place.is_symlink() or place.is_fifo() else place.rmdir()
            make(place)
            look(path, tmp_path / "out")
            assert run(["search", "--resume", "first"]) == 2 or place is manifest
            capsys.readouterr()
            for leftover in (tmp_path / "out").glob("*"):
                leftover.rename(tmp_path / f"was-{time.monotonic_ns()}")
        place.unlink()
    write_ledger(path, searches.running().events)
    (path / ".lock").unlink(missing_ok=True)  # of the resumes that were refused
    for make in (os.mkfifo, os.mkdir, circle):
        make(path / ".lock")
        look(path, tmp_path / "out")
        (path / ".lock").rmdir() if (path / ".lock").is_dir() else (path / ".lock").unlink()
    (path / "trials.jsonl").unlink()
    for make in (os.mkfifo, os.mkdir, endless):
        make(path / "trials.jsonl")
        look(path, tmp_path / "out", within=(2,))
        ledger = path / "trials.jsonl"
        ledger.rmdir() if ledger.is_dir() else ledger.unlink()


def endless(place: Path) -> None:
    place.symlink_to("/dev/zero")


def circle(place: Path) -> None:
    place.symlink_to(place)


def huge(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(1 << 40)  # 1 TiB, sparse


def test_a_line_without_an_end(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (path / "trials.jsonl").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() + (1 << 40))
    began = time.monotonic()
    assert run(["status", "first"]) == 2
    assert "longer than 16,777,216 bytes" in capsys.readouterr().err
    assert time.monotonic() - began < 5
