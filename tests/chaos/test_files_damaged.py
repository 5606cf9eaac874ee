"""Every state file of a finished run cut off and bit-flipped: the right answer, or a refusal that names the file."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Count
from tests.chaos.runs import finished_run
from tests.conftest import completion_rows, write_jsonl
from trainables.data import store
from trainables.sft import SFT
from tuner.cli import run
from tuner.config import Tpe
from tuner.contract import SUMS, InputError, Preparation
from tuner.driver.resolved_settings import read_settings
from tuner.importing import Permission
from tuner.results.folder import RunFolder
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord
from tuner.study.study import Study

ROOT = Path(__file__).resolve().parents[2]
TRIES = 40
DAMAGED = "a state file cut off or with a bit flipped"


def damages(whole: bytes, seed: str, tries: int = TRIES) -> Iterator[tuple[str, bytes]]:
    """Yields damaged copies of a file with what was done: cut off, or one bit flipped, at the ends and in the middle.

    whole: the content. tries: places in the middle at which it is cut.
    """
    draw = random.Random(seed)
    for size in sorted({0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(tries))}):
        yield f"cut to {size} of {len(whole)}", whole[:size]
    places = {0, 7, len(whole) * 8 - 1, len(whole) * 8 - 8, *(draw.randrange(len(whole) * 8) for _ in range(2 * tries))}
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        yield f"bit {place % 8} of byte {place // 8}", bytes(flipped)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return finished_run(tmp_path / "runs")


class Answers:
    """Asks the reading commands about a run, and reads the settings that a resume would take."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys

    def ask(self, *words: str) -> tuple[int, str, str]:
        code = run(words)
        told = self.capsys.readouterr()
        assert "Traceback" not in told.err and code in (0, 2), (words, told.err)
        return code, told.out, told.err

    def export(self) -> tuple[int, dict[str, bytes], str]:
        to = self.path.parent / "exported"
        code, _, told = self.ask("export", "first", "--to", str(to))
        files = {p.name: p.read_bytes() for p in sorted(to.iterdir())} if to.exists() else {}
        shutil.rmtree(to, ignore_errors=True)
        return code, files, told

    def settings(self) -> Any:
        folder = RunFolder(self.path)
        return read_settings(folder, folder.record().settings_digest, Permission.given(("tests",)))


@pytest.mark.parametrize("name", ["resolved.json", "experiment.yaml"])
def test_settings(path: Path, name: str, capsys: pytest.CaptureFixture[str], fault: Count) -> None:
    answers, file = Answers(path, capsys), path / name
    status, show, settings = (
        answers.ask("status", "first", "--json"),
        answers.ask("show", "first", "1"),
        answers.settings(),
    )
    for what, damaged in damages(file.read_bytes(), name, TRIES // 2):
        whole = file.read_bytes()
        file.write_bytes(damaged)
        assert answers.ask("status", "first", "--json") == status, what
        assert answers.ask("show", "first", "1") == show, what
        assert answers.ask("status", "first")[0] == 0, what
        if name == "experiment.yaml":  # a copy for people: nothing reads it
            assert answers.settings() == settings, what
        else:
            code, _, told = answers.ask("search", "--resume", "first")
            assert code == 2 and str(file) in told, what
        file.write_bytes(whole)
        fault(DAMAGED)
    assert answers.settings() == settings


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "train.yaml"])
def test_the_best_adapter(path: Path, name: str, capsys: pytest.CaptureFixture[str], fault: Count) -> None:
    answers, file = Answers(path, capsys), path / "best" / name
    status, whole = answers.ask("status", "first", "--json"), file.read_bytes()
    code, exported, _ = answers.export()
    assert code == 0 and len(exported) == 5
    for what, damaged in damages(whole, name):
        file.write_bytes(damaged)
        assert answers.ask("status", "first", "--json") == status, what
        code, files, told = answers.export()
        if code == 0:  # white space around JSON says nothing
            assert name == "manifest.json" and json.loads(damaged) == json.loads(whole), what
        else:
            assert str(file) in told and not files, what
        fault(DAMAGED)
    file.unlink()
    code, files, told = answers.export()
    assert code == 2 and not files and str(path) in told


def test_the_ledger(path: Path, capsys: pytest.CaptureFixture[str], fault: Count) -> None:
    """A cut loses whole events from the end and nothing else; a flipped bit is found."""
    answers, file = Answers(path, capsys), path / "trials.jsonl"
    whole = file.read_bytes()
    rows = whole.splitlines(keepends=True)
    alike = 0
    for what, damaged in damages(whole, "ledger", 3 * TRIES):
        file.write_bytes(damaged)
        code, out, told = answers.ask("status", "first", "--json")
        if code == 0:
            kept = damaged.count(b"\n")
            assert damaged[: len(b"".join(rows[:kept]))] == b"".join(rows[:kept]), what
            assert kept >= len(rows) - 1 or "cut" in what, what
            file.write_bytes(b"".join(rows[:kept]))
            assert answers.ask("status", "first", "--json") == (0, out, ""), what
            alike += 1
        else:
            assert str(file) in told, what
            assert "cut to" not in what or damaged.count(b"\n") == 0, what
        fault(DAMAGED)
    assert alike >= TRIES, "most cuts are those of a crash, and are read"


def test_a_ledger_that_lost_its_end_is_no_reason_to_run_it_again(path: Path, tmp_path: Path) -> None:
    record = SearchRecord.fold(read_ledger(path / "trials.jsonl"))

    def study(records: Any) -> Study:
        return Study(
            tmp_path / "study.journal", name="s", space=Identity(), sampler=Tpe(), num_trials=8, seed=0, recipe={},
            records=records,
        )  # fmt: skip

    study(record.trials.values())
    again = study(record.trials.values())
    assert len(again.optuna.trials) == 8
    for cut in (0, 3, 7):
        with pytest.raises(InputError, match="has lost its end: it does not know how trial") as caught:
            study([t for t in record.trials.values() if t.number < cut])
        assert caught.value.where == str(tmp_path / "trials.jsonl")


def test_status_says_that_a_ledger_lost_its_end(path: Path, capsys: pytest.CaptureFixture[str], fault: Count) -> None:
    """Cut between two lines it looks like that of a driver which died there; the study's journal knows better."""
    file = path / "trials.jsonl"
    rows = file.read_bytes().splitlines(keepends=True)
    whole = SearchRecord.fold(read_ledger(file))
    Study(path / "study.journal", name="s", space=Identity(), sampler=Tpe(), num_trials=8, seed=0, recipe={},
          records=whole.trials.values())  # fmt: skip
    answers = Answers(path, capsys)
    said = []
    for kept in range(1, len(rows) + 1):
        file.write_bytes(b"".join(rows[:kept]))
        code, out, told = answers.ask("status", "first")
        damaged = json.loads(answers.ask("status", "first", "--json")[1])["damaged"]
        assert code == 0 and out and bool(damaged) == ("has lost its end: it does not know how trial" in told)
        record = SearchRecord.fold(read_ledger(file))
        assert bool(damaged) == (record.num_ended < whole.num_ended)
        said.append(bool(damaged))
        fault(DAMAGED)
    assert True in said and not said[-1]
    (path / "study.journal").write_bytes(b"[" * 10_000 + b"\n")
    assert answers.ask("status", "first")[2] == ""


def test_a_damaged_study_is_made_anew_from_the_ledger(path: Path, tmp_path: Path, fault: Count) -> None:
    journal = tmp_path / "study.journal"
    records = SearchRecord.fold(read_ledger(path / "trials.jsonl")).trials.values()

    def states() -> list[Any]:
        study = Study(
            journal, name="s", space=Identity(), sampler=Tpe(), num_trials=8, seed=0, recipe={}, records=records
        )
        return [(t.number, t.state.name, t.value, t.params, t.intermediate_values) for t in study.optuna.trials]

    expected = states()
    whole = journal.read_bytes()
    for what, damaged in damages(whole, "journal", 12):
        journal.write_bytes(damaged)
        try:
            assert states() == expected, what
        except InputError as error:  # the flipped bit is a trial's number, say
            assert error.where.endswith("trials.jsonl") and "study.journal" in error.what, what
        fault(DAMAGED)


class Identity:
    """A space that writes parameters as they are."""

    def encode(self, params: Any) -> dict[str, Any]:
        return dict(params)


def test_tokenized_rows_are_made_again(tiny_model: Path, tmp_path: Path, fault: Count) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", completion_rows(24))
    settings = {"model": {"model_name_or_path": str(tiny_model)}, "data": {"train": str(file), "max_length": 48}}
    first = SFT.prepare(settings, tmp_path / "cache")
    rows = contents(first)
    files = sorted(p for p in Path(first.folder).rglob("*") if p.is_file())
    assert len(files) >= 7
    for number, place in enumerate(files):
        whole = place.read_bytes()
        for what, damaged in list(damages(whole, place.name, 1))[number % 2 :: 2]:
            place.write_bytes(damaged)
            again = SFT.prepare(settings, tmp_path / "cache")
            assert contents(again) == rows and again.facts == first.facts, (place, what)
            told = ("the tokenized rows of an earlier session were damaged: the rows were tokenized again",)
            assert again.notes in (told, first.notes), (place, what)
            assert place.read_bytes() != damaged or damaged == whole or again.notes == first.notes
            fault(DAMAGED)
    left = {p.name for p in (tmp_path / "cache").iterdir()}
    assert left == {Path(first.folder).name, "base.json", "companions", "companions.json"}, (
        "nothing is left beside the rows, what is known of the base and what belongs beside an adapter"
    )


def test_a_tokenizer_that_is_damaged_between_two_sessions_is_written_again(
    tiny_model: Path, tmp_path: Path, fault: Count
) -> None:
    """One with a bit flipped still loads, and would stand beside the best adapter."""
    file = write_jsonl(tmp_path / "rows.jsonl", completion_rows(24))
    settings = {"model": {"model_name_or_path": str(tiny_model)}, "data": {"train": str(file), "max_length": 48}}
    first = SFT.prepare(settings, tmp_path / "cache")
    files = [*sorted((tmp_path / "cache" / "companions").iterdir()), tmp_path / "cache" / "companions.json"]
    assert len(files) >= 3
    for place in files:
        whole = place.read_bytes()
        for what, damaged in damages(whole, place.name, 2):
            place.write_bytes(damaged)
            again = SFT.prepare(settings, tmp_path / "cache")
            assert place.read_bytes() == whole and again.folder == first.folder, (place, what)
            told = ("the tokenizer's files of an earlier session were damaged: they were written again",)
            assert again.notes == (() if damaged == whole else told), (place, what)
            fault(DAMAGED)


def contents(preparation: Preparation) -> list[Any]:
    return [store.open_set(preparation, name)[:] for name in ("train", "validation")]


def tuner(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words, "--storage-path", str(folder)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_an_adapter_that_is_damaged_between_two_sessions_is_not_taken(tmp_path: Path, fault: Count) -> None:
    small = ("train.max_steps=4", "train.eval_steps=0.5", "data.max_validation_rows=10")
    settings = [word for setting in small for word in ("--set", setting)]
    settings += ["--num-trials", "3", "--sampler", "random", "--max-concurrent-trials", "1"]
    assert tuner(tmp_path, "search", "--name", "run", *settings)[0] == 0
    folder = RunFolder(tmp_path / "run")
    record = SearchRecord.fold(read_ledger(folder.ledger))
    assert record.best and not (folder.best / SUMS).exists()
    number = record.best.number
    weights = folder.trial(number) / "adapter" / "adapter_model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    weights.write_bytes(flipped)

    code, said = tuner(tmp_path, "search", "--resume", "run", "--num-trials", "4")
    assert code == 0 and f"the adapter of trial {number} is damaged" in " ".join(said.split())
    assert "best/ is a whole copy of it" in " ".join(said.split())
    assert json.loads((folder.best / "manifest.json").read_text())["trial"] == number
    shutil.rmtree(folder.best)
    code, said = tuner(tmp_path, "search", "--resume", "run", "--num-trials", "5")
    again = " ".join(said.split())
    assert "there is no best/" in again and f"train run --trial {number}" in again and not folder.best.exists()
    rows = write_jsonl(tmp_path / "rows.jsonl", completion_rows(24))
    code, said = tuner(tmp_path, "evaluate", "run", "--data", str(rows))
    assert code == 2 and "adapter_model.safetensors" in said and "is not what the trial wrote" in said
    code, said = tuner(tmp_path, "train", "run", "--from-adapter")
    assert code == 2 and "adapter_model.safetensors" in said
    fault("an adapter damaged between two sessions", 4)
