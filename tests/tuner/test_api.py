"""`from tuner import search, plan, open_run`: quick to import, and what the commands say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tuner
from tests.chaos.runs import finished_run
from tuner.cli import run
from tuner.contract import InputError
from tuner.report.machine import dump
from tuner.results.lock import RunLock

ROOT = Path(__file__).resolve().parents[2]


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints as JSON."""
    assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def printed(code: str) -> str:
    """What code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules)\nfrom tuner import Run, open_run, plan, search\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)), callable(plan))"
    )
    assert printed(code) == "['tuner'] True\n"


def test_a_plan_in_a_process_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tuner import plan\nfound = plan(num_trials=4, settings={'train.max_steps': 50})\n"
        "print(found.budget.steps, found.experiment.search.num_trials, len(found.rungs))\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'IPython') if name in sys.modules])"
    )
    assert printed(code) == "50 4 3\n[]\n"


def test_a_plan_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"train.max_steps": None, "train.num_train_epochs": 2.0, "search.seed": 3}
    found = tuner.plan(model="org/base", data="org/rows", space="qlora", settings=settings)
    sets = ("train.max_steps=null", "train.num_train_epochs=2.0", "search.seed=3")
    words = ["plan", "--model", "org/base", "--data", "org/rows", "--space", "qlora"]
    shown = told([*words, *(word for text in sets for word in ("--set", text))], capsys)
    assert json.loads(dump(found.to_dict())) == {
        k: v for k, v in shown.items() if k not in ("data", "refused", "outlook")
    }


def test_a_space_as_a_mapping() -> None:
    space = {"parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}}
    assert list(tuner.plan(model="org/base", data="org/rows", space=space).space.parameters) == ["learning_rate"]


def test_what_is_wrong_is_an_input_error() -> None:
    with pytest.raises(InputError, match="did you mean"):
        tuner.plan(settings={"train.lerning_rate": 1e-3})
    with pytest.raises(InputError, match="there is no run 'nothing'"):
        tuner.open_run("nothing")


def test_a_run_says_what_the_commands_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    path = finished_run(tmp_path / "runs")
    found = tuner.open_run("first")
    assert (found.name, found.path, found.outcome) == ("first", path, None)
    assert tuner.open_run(path).path == path and tuner.open_run("first", tmp_path / "runs").path == path
    status = told(["status", "first"], capsys)
    assert json.loads(dump(found.status())) == {k: v for k, v in status.items() if k != "damaged"}
    assert status["active"] is False
    assert json.loads(dump(found.show(3))) == told(["show", "first", "3"], capsys)
    assert found.show()["number"] == 1 and found.show()["adapter"] == str(found.best)
    assert run(["status", "first"]) == 0
    assert f"{found!r}\n" == capsys.readouterr().out
    assert found.record().best is not None
    assert (found.export(tmp_path / "adapter") / "adapter_model.safetensors").is_file()
    with pytest.raises(InputError, match="there is no trial 99 in first"):
        found.show(99)
    for ask in (found.stop, lambda: found.add({"lora_r": 8})):
        with pytest.raises(InputError, match="no driver runs the search"):
            ask()


def test_a_run_whose_driver_is_gone_has_no_trial_that_runs(tmp_path: Path) -> None:
    path = finished_run(tmp_path)
    lines = (path / "trials.jsonl").read_text().splitlines(keepends=True)
    (path / "trials.jsonl").write_text("".join(lines[:-12]))
    found = tuner.open_run(path)
    assert not found.status()["active"] and not found.record().running
    (path / ".lock").touch()
    lock = RunLock(path)
    try:
        assert found.status()["active"] and found.record().running
    finally:
        lock.release()
