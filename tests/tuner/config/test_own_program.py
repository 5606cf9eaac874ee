"""A program of the user's own that cannot be used: refused with its file, its line and what it lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner import guest
from tuner.cli import run
from tuner.config import load_experiment
from tuner.contract import InputError
from tuner.importing import ALLOWED, Permission

WHOLE = """\
from pydantic import BaseModel
from tuner.contract import Budget, Parameter
class Train(BaseModel): max_steps: int = 20; learning_rate: float = 0.01
class Settings(BaseModel): train: Train = Train()
class Mine:
    Settings = Settings
    PARAMETERS = {"learning_rate": Parameter("learning_rate", "train.learning_rate", "float", low=1e-6, high=1.0)}
    REFUSED = {}
    @classmethod
    def budget(cls, settings): return Budget(steps=settings.train.max_steps)
    @classmethod
    def prepare(cls, settings, cache): ...
    def start(self, assignment): ...
    def step(self): ...
    def stop(self): ...
"""
SEARCH = """\
search: {num_trials: 2, space: {parameters: {learning_rate: {type: float, low: 0.001, high: 0.1}}}}
run: {program: "NAME:Mine"}
"""

BROKEN: dict[str, tuple[str, str, str, str]] = {
    # what is wrong: (text that is replaced, by what, what is told, the line that is named)
    "a typo": ("class Settings(", "class Settings)", "cannot be read as Python: unmatched ')'", "4"),
    "a name": ("REFUSED = {}", "REFUSED = refused", "raised NameError: name 'refused' is not defined", "8"),
    "an import": ("class Train", "import libfoo\nclass Train", "raised ModuleNotFoundError", "3"),
    "an exit": ("class Train", "raise SystemExit(0)\nclass Train", "called sys.exit(0)", "3"),
    "a hang": ("class Train", "while True: pass\nclass Train", "did not come back within 2 s", "3"),
    "a crash": ("class Train", "import os; os.abort()\nclass Train", "was ended by signal 6", ""),
    "another name": ("class Mine", "class Mein", "is not there; did you mean `Mein`?", ""),
    "a function": ("class Mine:", "def Mine(): ...\nclass Other:", "is not a class (function)", ""),
    "another's class": ("class Mine:", "from subprocess import Popen as Mine\nclass Other:", "it comes from sub", ""),
    "methods that lack": ("    def step(self): ...\n    def stop(self): ...\n", "", "it has no step, stop", ""),
    "a method that is none": ("    def step(self): ...\n", "    step = 3\n", "`step` is not a method", ""),
    "abstract": (
        "class Mine:",
        "from abc import ABC, abstractmethod\nclass Base(ABC):\n    @abstractmethod\n    def warm(self): ...\n"
        "class Mine(Base):",
        "it is abstract: warm without a body",
        "",
    ),
    "settings that are no model": ("    Settings = Settings", "    Settings = dict", "and not a pydantic model", ""),
    "parameters that are a list": ("    REFUSED", "    PARAMETERS = []\n    REFUSED", "PARAMETERS is an empty", ""),
    "a parameter that is none": (
        "    REFUSED", "    PARAMETERS = {'x': 'float'}\n    REFUSED", "PARAMETERS['x']: 'float' (text), and not a", "",
    ),
    "a parameter of no kind": ('"float", low', '"real", low', "kind 'real', and not float, int or choice", ""),
    "a budget that raises": ("return Budget(steps=", "return Budget(stepz=", "raised TypeError", "10"),
    "a budget that leaves": ("def budget(cls, settings): ", "def budget(cls, settings): raise SystemExit(0); ",
                             "called sys.exit(0)", "10"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_told(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    if case == "a hang":
        monkeypatch.setattr(guest, "IMPORT_S", 2.0)
    before, after, told, line = BROKEN[case]
    name = f"mine_{list(BROKEN).index(case)}"  # Python imports a name once
    assert before in WHOLE
    (tmp_path / f"{name}.py").write_text(WHOLE.replace(before, after))
    (tmp_path / "search.yaml").write_text(SEARCH.replace("NAME", name))
    assert run(["plan", "search.yaml", "--allow-module", name]) == 2
    words = capsys.readouterr().err
    assert told in words and "Traceback" not in words and "expected: " in words
    assert words.startswith(f"error: {name}.py:{line}: " if line else "error: search.yaml:2: "), words


def test_a_plan_runs_no_program_that_only_a_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv(ALLOWED)
    (tmp_path / "theirs.py").write_text(WHOLE + "from pathlib import Path\nPath('ran').touch()\n")
    (tmp_path / "search.yaml").write_text(SEARCH.replace("NAME", "theirs"))
    for words in (["plan", "search.yaml"], ["submit", "--dry-run", "search.yaml", "--storage-path", "/shared"],
                  ["submit", "--slurm", "search.yaml", "--name", "x"]):  # fmt: skip
        assert run(words) == 2
        told = capsys.readouterr().err
        assert "theirs.py:Mine would be run" in told and "try: --allow-module theirs" in told
        assert not Path("ran").exists()
    with pytest.raises(InputError, match="would be run"):
        load_experiment(Path("search.yaml"), permission=Permission(beside=False))
    assert run(["plan", "search.yaml", "--allow-module", "theirs"]) == 0
    assert Path("ran").exists() and "theirs.py:Mine, a program of yours" in capsys.readouterr().out
    assert run(["submit", "--slurm", "search.yaml", "--name", "x", "--allow-module", "theirs"]) == 0
    assert "--allow-module theirs" in capsys.readouterr().out
    assert load_experiment(Path("search.yaml"), permission=Permission()).code["run.program"].allowed


def test_it_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the file, and not where the command is typed."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    home = tmp_path / "home"
    home.mkdir()
    (home / "anywhere.py").write_text(WHOLE)
    (home / "search.yaml").write_text(SEARCH.replace("NAME", "anywhere"))
    monkeypatch.chdir(tmp_path)
    assert load_experiment(Path("home/search.yaml")).code["run.program"].folder == home
    with pytest.raises(InputError, match=f"no module `anywhere_else` in {tmp_path}"):
        load_experiment(Path("home/search.yaml"), [], {"run.program": "anywhere_else:Mine"})
