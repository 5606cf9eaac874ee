"""A user's own space function, in a process of its own: whatever it does wrong is told with its file and line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.tuner.config.programs import Tiny
from tuner import guest
from tuner.contract import InputError
from tuner.importing import Permission
from tuner.space import FunctionSpace, load_space

FUNCTIONS: dict[str, tuple[str, str, str]] = {
    # what it is: (the function's body or the whole module, what is told, the line that is named)
    "raises": ("    x = 1\n    return {'learning_rate': trail}\n", "NameError: name 'trail' is not defined", "3"),
    "raises deeper": (
        "    return helper(trial)\ndef helper(trial):\n    raise KeyError('x')\n",
        "in helper: raise KeyError('x')",
        "4",
    ),
    "leaves": ("    sys.exit(0)\nimport sys\n", "called sys.exit(0)", "2"),
    "leaves with nothing": ("    raise SystemExit\n", "called sys.exit(None)", "2"),
    "is interrupted": ("    raise KeyboardInterrupt\n", "raised KeyboardInterrupt", "2"),
    "ends its process": ("    import os\n    os._exit(0)\n", "ended its process with exit code 0", ""),
    "aborts": ("    import os\n    os.abort()\n", "was ended by signal 6", ""),
    "recurses": ("    return mine(trial)\n", "raised RecursionError", "2"),
    "loops": ("    while True:\n        pass\n", "did not come back within 0.5 s", ""),
    "sleeps": ("    import time\n    time.sleep(99)\n", "in mine: time.sleep(99)", "3"),
    "reads": ("    return {'lora_r': input()}\n", "raised EOFError", "2"),
    "returns nothing": ("    trial.suggest_int('lora_r', 1, 8)\n", "returned nothing", ""),
    "returns no point": ("    return {'lora_r': object()}\n", "returned what is no point: object is neither", ""),
    "returns itself": ("    x = {}\n    x['lora_r'] = x\n    return x\n", "returned what is no point", ""),
    "returns a list": ("    return [trial.suggest_int('lora_r', 1, 8)]\n", "returned a list", ""),
    "draws nothing": ("    return {'lora_r': 8}\n", "draws nothing: every trial would be the same point", ""),
    "draws twice": (
        "    a = trial.suggest_int('lora_r', 1, 8)\n    return {'lora_r': trial.suggest_int('lora_r', 1, 16)}\n",
        "'lora_r' is drawn twice, from two ranges",
        "3",
    ),
    "draws the wrong way round": (
        "    return {'lora_r': trial.suggest_int('lora_r', 8, 1)}\n", "raised ValueError: `low <= high`", "2",
    ),
    "draws without a name": ("    return {'lora_r': trial.suggest_int(3, 1, 8)}\n", "a name is text, and not 3", "2"),
    "draws in another way": ("    return {'lora_r': trial.draw('lora_r')}\n", "raised AttributeError", "2"),
    "is a generator": ("    yield {}\n", "is a generator or a coroutine", "1"),
    "is malformed": ("    return {'lora_r': \n", "cannot be read as Python", "2"),
    "imports what is not there": ("MODULE\nimport libfoo\n", "ModuleNotFoundError: No module named 'libfoo'", "2"),
    "raises when imported": ("MODULE\n\nx = y\n", "raised NameError: name 'y' is not defined", "3"),
    "leaves when imported": ("MODULE\nraise SystemExit(0)\n", "called sys.exit(0)", "2"),
    "loops when imported": ("MODULE\nwhile True: pass\n", "did not come back within 1 s", "2"),
    "takes too much": ("MODULE\ndef mine(trial, other): ...\n", "takes (trial, other), and is called", "2"),
    "is no function": ("MODULE\nmine = 3\n", "is not a function of yours (int)", ""),
    "is another's": ("MODULE\nfrom os import abort as mine\n", "is not a function of yours", ""),
    "is another's in Python": ("MODULE\nfrom pty import spawn as mine\n", "it comes from pty", ""),
    "is half another's": ("MODULE\nfrom functools import partial\nmine = partial(print)\n", "is not a function", ""),
    "is misspelt": ("MODULE\ndef mime(trial): ...\n", "is not there; did you mean `mime`?", ""),
}  # fmt: skip


def space(folder: Path, text: str) -> FunctionSpace:
    whole = text.replace("MODULE", "# mine", 1) if text.startswith("MODULE") else f"def mine(trial):\n{text}"
    (folder / "spaces.py").write_text(whole)
    made = load_space("spaces:mine", Tiny, folder, Permission())
    assert isinstance(made, FunctionSpace)
    return made


def draw(made: FunctionSpace, number: int = 1) -> dict[str, Any]:
    return made.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask())


@pytest.mark.parametrize("case", FUNCTIONS)
def test_whatever_it_does_is_told_with_its_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guest, "CALL_S", 0.5)
    monkeypatch.setattr(guest, "IMPORT_S", 1.0 if case == "loops when imported" else 60.0)
    text, told, line = FUNCTIONS[case]
    with pytest.raises(InputError) as refused:
        draw(space(tmp_path, text))
    assert told in str(refused.value)
    assert not line or refused.value.where == f"spaces.py:{line}", refused.value.where
    assert "tuner/" not in str(refused.value) and "Traceback" not in str(refused.value)


def test_it_draws_from_the_study(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = """    print("words of mine")
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    rank = trial.suggest_categorical("lora_r", [8, 16])
    warm = trial.suggest_float("warmup_ratio", 0.0, 0.2 if rate > 1e-3 else 0.1)
    return {"train.learning_rate": rate, "lora_r": rank, "warmup_ratio": warm}
"""
    made = space(tmp_path, text)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    trials = [study.ask() for _ in range(20)]
    points = [made.suggest(trial) for trial in trials]
    assert [dict(trial.params) for trial in trials] == points
    assert {point["lora_r"] for point in points} == {8, 16}
    assert capfd.readouterr().out == ""
    recipe = {"learning_rate": 1e-3, "lora_r": 8, "warmup_ratio": 0.03}
    assert made.recipe(recipe).params == recipe


def test_after_a_failure_it_is_called_anew(tmp_path: Path) -> None:
    text = """    if trial.suggest_int("lora_r", 1, 8) == 1: sys.exit()
    return {"lora_r": 2}
import sys
"""
    made = space(tmp_path, text)
    fixed = optuna.trial.FixedTrial
    assert made.suggest(fixed({"lora_r": 2})) == {"lora_r": 2}
    with pytest.raises(InputError, match=r"called sys\.exit"):
        made.suggest(fixed({"lora_r": 1}))
    assert made.suggest(fixed({"lora_r": 2})) == {"lora_r": 2}


def test_its_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    made = space(tmp_path, "    return {'lora_r': trial.suggest_int('lora_r', 1, 8)}\n")
    draw(made)
    process = made.function._guest._process  # type: ignore[union-attr]
    made.function.close()
    assert process.wait(timeout=10) is not None
    draw(made)
    process = made.function._guest._process  # type: ignore[union-attr]
    del made
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.returncode is not None
