"""Which code may be named: found without importing it, and only where the user said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import library
from tuner import importing
from tuner.contract import InputError
from tuner.importing import ALLOWED, Own, Permission, find, load

MARK = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\ndef mine(trial): return {}\n"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the folders of user code is not there for a Ray that a later one starts: among it is a module
    `click`, which workers would import for the library."""
    monkeypatch.delenv(ALLOWED)
    monkeypatch.setattr(importing, "_added", [])
    monkeypatch.setattr(importing, "_loaded", [])
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a search file's own modules, each of which writes a mark if it is imported."""
    home = tmp_path / "home"
    for name in ("spaces.py", "pkg/__init__.py", "pkg/inner.py", "space/inner.py", "pty.py", "click.py", "click_.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(MARK)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text(MARK)
    (home / "linked.py").symlink_to(tmp_path / "elsewhere" / "other.py")
    (home / "bad").mkdir()
    (home / "bad" / "__init__.py").symlink_to(tmp_path / "elsewhere" / "other.py")
    (home / "bad" / "inner.py").write_text(MARK)
    (home / "link_within.py").symlink_to("spaces.py")
    (home / "run").mkdir()
    (home / "run" / "trials.jsonl").touch()
    (home / "run" / "planted.py").write_text(MARK)
    return home


def found(folder: Path, target: str, **more: Any) -> Own:
    return find(target, key="search.space", where="search.yaml:3", home=folder, **{"permission": Permission(), **more})


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("spaces:mine", "spaces.py"),
        ("pkg:mine", "pkg/__init__.py"),
        ("pkg.inner:mine", "pkg/inner.py"),
        ("space.inner:mine", "space/inner.py"),
        ("link_within:mine", "link_within.py"),
    ],
)
def test_code_beside_the_file_is_found_and_not_run(folder: Path, target: str, file: str) -> None:
    own = found(folder, target)
    assert own.file == folder / file and own.folder == folder and own.allowed
    assert not list(folder.rglob("*.ran")) and own.module not in sys.modules


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("http.server:test", "of Python's standard library"),
        ("builtins:breakpoint", "of Python's standard library"),
        ("__main__:run", "of Python's standard library, and"),
        ("tuner.cli:run", "tuner's own"),
        ("pty:mine", "give {home}/pty.py another name"),
        ("click:echo", "give click in {home} another name"),
        ("optuna:create_study", "and not in {home}"),
        ("optuna.samplers:TPESampler", "--allow-module optuna.samplers if you know"),
        ("pytest:main", "and not in {home}"),
        ("linked:mine", "is a link to {elsewhere}/other.py"),
        ("bad.inner:mine", "is a link to {elsewhere}/other.py"),
        ("run.planted:mine", "code out of the run folder {home}/run"),
        ("nowhere:mine", "no module `nowhere` in {home}"),
        ("spaces.deeper:mine", "no module `spaces.deeper`"),
        ("space:mine", "no module `space`"),
        ("spaces", "package.module:name"),
        ("spaces:", "package.module:name"),
        ("spaces:a.b", "package.module:name"),
        ("spaces:mine(1)", "package.module:name"),
        ("..spaces:mine", "package.module:name"),
        ("/etc/passwd:mine", "package.module:name"),
        ("a\x00b:mine", "package.module:name"),
    ],
)
def test_what_is_refused(folder: Path, target: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        found(folder, target)
    assert told.format(home=folder, elsewhere=folder.parent / "elsewhere") in str(refused.value)
    assert refused.value.where == "search.yaml:3"
    assert not list(folder.parent.rglob("*.ran"))


@pytest.mark.skipif(os.getuid() != 0, reason="gives a file to another user")
def test_what_another_user_put_into_the_folder(folder: Path) -> None:
    os.chown(folder / "spaces.py", 12345, -1)
    with pytest.raises(InputError, match="belongs to another user"):
        found(folder, "spaces:mine")
    os.chown(folder, 12345, -1)  # all of it is theirs, and it was named
    assert found(folder, "spaces:mine").allowed


def test_a_command_that_looks_runs_only_what_was_typed_or_allowed(folder: Path) -> None:
    looking = Permission(beside=False)
    assert not found(folder, "spaces:mine", permission=looking).allowed
    assert found(folder, "spaces:mine", permission=looking, typed=True).allowed
    assert found(folder, "spaces:mine", permission=Permission(("spaces",), beside=False)).allowed
    assert found(folder, "pkg.inner:mine", permission=Permission(("pkg",), beside=False)).allowed
    assert not found(folder, "pkg:mine", permission=Permission(("pkg.inner",), beside=False)).allowed
    assert not found(folder, "spaces:mine", permission=Permission(("space",), beside=False)).allowed


def test_what_is_allowed_is_found_wherever_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found(folder, "optuna.samplers:TPESampler", permission=Permission(("optuna",))).allowed
    assert found(folder, "linked:mine", permission=Permission(("linked",))).allowed
    for target in ("http.server:test", "run.planted:mine"):
        with pytest.raises(InputError):
            found(folder, target, permission=Permission((target.partition(":")[0],)))
    monkeypatch.setenv(ALLOWED, "optuna, other")
    assert Permission.given(["mine"]).modules == ("mine", "optuna", "other")


def test_what_is_allowed_may_lie_in_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program of a run trained again: `train runs/first/best/train.yaml --allow-module spaces`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    best = tmp_path / "best"
    best.mkdir()
    with pytest.raises(InputError, match="--allow-module spaces if you know"):
        found(best, "spaces:mine")
    assert found(best, "spaces:mine", permission=Permission(("spaces",))).folder == folder


def test_the_folder_is_looked_in_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it takes the place of an installed module, whoever imports that later."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    load(found(folder, "click_:mine"))
    assert (folder / "click_.ran").exists()
    assert sys.path[-1] == str(folder)
    sys.modules.pop("click_")


def test_no_callable_of_the_standard_library_can_be_named() -> None:
    """Every one, as a space and as a program, in a process whose audit hook sees imports, calls and files."""
    names = library.callables()
    assert len(names) > 7000 and {"http.server:test", "pty:spawn", "os:abort", "builtins:breakpoint"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", SWEEP], input="\n".join(names), capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), ALLOWED: " ".join(sys.stdlib_module_names)},
    )  # fmt: skip
    assert done.stdout.split() == [str(2 * len(names)), "refused"], done.stdout[-2000:] + done.stderr[-2000:]


SWEEP = """
import sys
from pathlib import Path
from tuner.config.layers import Origin
from tuner.config.own_program import read_program
from tuner.config.space_source import read_space
from tuner.contract import InputError
from tuner.importing import Permission
import stat, difflib
names, seen = sys.stdin.read().split(), []
def hook(event, arguments):
    if event in ("import", "exec", "compile") or event.partition(".")[0] in ("socket", "subprocess", "os", "shutil"):
        if event not in ("os.listdir", "os.scandir"):
            seen.append((event, arguments))
def refused(call):
    try:
        call()
    except InputError as error:
        return "standard library" in error.what
    return False
permission, origin = Permission.given(), Origin("--program", Path.cwd(), typed=True)
refused(lambda: read_space("os:abort", Path.cwd(), permission=permission, typed=True))  # what it imports itself
sys.addaudithook(hook)
count = sum(
    refused(lambda: read_space(name, Path.cwd(), permission=permission, typed=True))
    + refused(lambda: read_program(name, origin, permission))
    for name in names
)
print(count, "refused" if not seen else seen)
"""
