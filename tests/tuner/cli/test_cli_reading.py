"""The commands that only read, on a run folder whose ledger was written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.runs import finished_run, write_ledger
from tests.tuner.report import golden, searches
from tuner.cli import run
from tuner.results.ledger import read_ledger
from tuner.results.lock import RunLock


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs: `first` is over, `cut` was interrupted, `gone` lost its driver."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    gone = searches.running()
    for name, tape in (("first", searches.finished()), ("cut", searches.interrupted()), ("gone", gone)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "trials.jsonl").write_text("".join(e.to_json() + "\n" for e in tape.events), encoding="utf-8")
        (folder / ".lock").touch()
        (folder / "resolved.json").write_text('{"run": {"program": "sft"}}', encoding="utf-8")
    best = tmp_path / "runs" / "first" / "best"
    best.mkdir()
    (best / "adapter_model.safetensors").write_bytes(b"0" * 1_210_000)
    for name in ("manifest.json", "train.yaml", "README.md"):
        (best / name).write_text("{}", encoding="utf-8")
    return tmp_path


def test_status_of_a_finished_search(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "first"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "best   trial 1: 4.312, 11.5% below the recipe's 4.874" in captured.out
    assert "kept   runs/first/best: adapter (1.2 MB), train.yaml, README.md" in captured.out
    assert "alpha" in captured.out  # the program's own heading for lora_alpha_mode
    assert max(map(len, captured.out.splitlines())) <= 100


def test_status_names_the_line_that_resumes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "cut", "--storage-path", str(runs / "runs")]) == 0
    assert "python -m tuner search --resume cut\n" in capsys.readouterr().out


def test_status_of_a_search_whose_driver_is_gone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "gone"]) == 0
    out = capsys.readouterr().out
    assert "python -m tuner search --resume gone" in out
    assert out.count("interrupted") == 3


def test_status_of_a_search_that_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock(runs / "runs" / "gone")
    assert run(["status", "gone"]) == 0
    assert run(["status", "gone", "--json"]) == 0
    lock.release()
    out = capsys.readouterr().out
    assert "--resume" not in out
    assert "5 of 16 trials" in out
    told = json.loads(out.splitlines()[-1])
    assert told["active"] is True
    assert [row["number"] for row in told["leaderboard"] if row["status"] == "running"] == [5, 6, 7]


def test_a_running_search_is_as_old_as_it_is_whatever_the_clock_says(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its events are of years ago, as after a clock that was set; its ledger was written a moment ago."""
    import time

    from tuner.report import formatting as words

    record = searches.running().record
    assert record.updated and record.updated < time.time() - 86_400
    lock = RunLock(runs / "runs" / "gone")
    try:
        assert run(["status", "gone"]) == 0
    finally:
        lock.release()
    shown = capsys.readouterr().out.splitlines()[0]
    assert any(words.clock(record.wall_s + late) in shown for late in range(60)), shown


def test_show_says_where_the_adapter_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "first", "1"]) == 0
    assert "adapter runs/first/best\n" in capsys.readouterr().out
    assert run(["show", "first", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["adapter"] is None
    assert told["reason"] == "rung"
    assert [point["eval_loss"] for point in told["points"]] == [7.4, 6.402]


def test_show_of_a_trial_that_is_not_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "first", "99"]) == 2
    assert capsys.readouterr().err == "error: NUMBER: there is no trial 99 in first\n  expected: 0 to 7\n"


def test_a_misspelt_run_is_told_its_nearest_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "frist"]) == 2
    assert "expected: one of: first" in capsys.readouterr().err


def test_spaces(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["spaces", "--json"]) == 0
    names = [space["name"] for space in json.loads(capsys.readouterr().out)["spaces"]]
    assert {"lora", "qlora", "learning_rate"} <= set(names)
    assert run(["spaces"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in names)
    for name in names:
        assert run(["spaces", name]) == 0
        assert "learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "spaces"])
def test_schemas_are_json_schemas(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


TOY = """\
run: {program: "tests.programs.toy:Toy", name: first}
train: {max_steps: 27}
search:
  num_trials: 6
  seed: 7
  space:
    name: toy
    description: two parameters of a toy
    parameters:
      learning_rate: {type: float, low: 1.0e-5, high: 1.0, log: true}
      batch_size: {type: choice, values: [8, 16]}
"""


def test_plan(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "toy.yaml").write_text(TOY, encoding="utf-8")
    parts = {}
    for heading, extra in {
        "asha": [],
        "epochs": ["--set", "train.num_train_epochs=2"],
        "no scheduler, gp": ["--scheduler", "none", "--sampler", "gp", "--max-concurrent", "2"],
        "a gp with asha": ["--sampler", "gp", "--address", "10.0.0.1:6379"],
    }.items():
        assert run(["plan", "toy.yaml", *extra]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        parts[heading] = captured.out
    golden.check("cli_plan.txt", parts)


def test_plan_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "toy.yaml").write_text(TOY, encoding="utf-8")
    assert run(["plan", "toy.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["budget"]["steps"] == 27
    assert told["experiment"]["search"]["num_trials"] == 6
    assert not (runs / "runs" / "toy").exists()


def test_plan_tells_the_memory_of_the_largest_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what it is for; four packed trials share the base and nothing else."""
    monkeypatch.chdir(tmp_path)
    needs = []
    for slots in (1, 4):
        assert run(["plan", "--json", "--trials-per-gpu", str(slots)]) == 0
        needs.append(json.loads(capsys.readouterr().out)["memory"])
    one, four = needs
    assert one["total"] == sum(value for name, value in one.items() if name != "total")
    assert four["base"] == one["base"] and four["adapters"] == 4 * one["adapters"]
    assert run(["plan"]) == 0
    assert "of a GPU for the largest trial (base" in capsys.readouterr().out


GPT2 = {"model_type": "gpt2", "n_positions": 512, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}
LLAMA = {"model_type": "llama", "max_position_embeddings": 512}


def _plan_of(config: dict[str, object], *more: str) -> int:
    """The exit code of `plan` on a base of which there is a config.json alone."""
    Path("base").mkdir(exist_ok=True)
    Path("base/config.json").write_text(json.dumps(config))
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    return run(["plan", "--model", "base", "--data", "rows.jsonl", *more])


def test_plan_says_where_it_does_not_know_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _plan_of(GPT2, "--set", "data.max_length=512") == 0
    assert "not known: config.json does not have the sizes of a decoder" in " ".join(capsys.readouterr().out.split())
    assert _plan_of(GPT2, "--set", "data.max_length=512", "--json") == 0
    assert json.loads(capsys.readouterr().out)["memory"] is None


def test_plan_refuses_rows_beyond_a_table_of_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _plan_of(GPT2) == 2
    said = capsys.readouterr().err
    assert "the base has a table of 512 positions (n_positions in its config.json)" in said
    assert "set data.max_length to 512" in said
    assert _plan_of(LLAMA) == 0
    assert "data.max_length 1024 is beyond the 512 positions" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("events", [False, True])
def test_resuming_a_search_that_has_nothing_left_says_so_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], events: bool
) -> None:
    path = finished_run(tmp_path)
    *events_before, end = read_ledger(path / "trials.jsonl")
    write_ledger(path, [*events_before, replace(end, details={**end.details, "outcome": "done"})])
    before = (path / "trials.jsonl").read_text()
    line = ["search", "--resume", path.name, "--storage-path", str(tmp_path), *(["--events"] if events else [])]
    assert run(line) == 3, "the exit code of its end: a trial had failed"
    said = capsys.readouterr()
    assert "nothing is left to run in first: 8 trials ended; --num-trials gives it more" in said.err
    assert said.out == (before if events else "")
    assert (path / "trials.jsonl").read_text() == before
