"""Decides which Python of a user's own may be run, and finds it without importing anything.

A search file, a flag or a run folder can name code: a space function, a program. It is run only where the user said so:

1. `search` and `train` run a module that lies in the folder of the file that names it.
2. Every command runs a module that was named on its own command line (`--program`, `--space`) and lies in the current
   folder, and one that `--allow-module` (or TUNER_ALLOW_MODULES) names, wherever it is installed.
3. Nothing of the standard library is ever run, and nothing out of a run folder.
4. All other commands (`plan`, `spaces`, `submit`) say what would be run, and run nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from tuner.contract import InputError

ALLOWED = "TUNER_ALLOW_MODULES"
"""The environment variable with names of modules as `--allow-module` takes them, separated by spaces or commas."""


@dataclass(frozen=True)
class Permission:
    """Which of a user's code a command may run."""

    modules: tuple[str, ...] = ()
    """Modules that --allow-module names, each with its submodules."""
    beside: bool = True
    """Whether code in the folder of the file that names it may run too: true for a command that runs that file."""

    @classmethod
    def given(cls, modules: Iterable[str] = (), *, beside: bool = True) -> Permission:
        """The permission of the command line (`modules`) and the environment together."""
        named = os.environ.get(ALLOWED, "").replace(",", " ").split()
        return cls(tuple(dict.fromkeys((*modules, *named))), beside)

    def names(self, module: str) -> bool:
        """Whether a module, or a package around it, is named."""
        return any(module == name or module.startswith(f"{name}.") for name in self.modules)


@dataclass(frozen=True)
class Own:
    """A function or a class of the user's own, found but not imported."""

    target: str
    """package.module:name"""
    file: Path
    """The file that runs when the module is imported."""
    folder: Path
    """The folder of sys.path in which Python finds the module."""
    allowed: bool
    """Whether this command may run it."""
    typed: bool = False
    """Whether it was named on the command line and not by a file."""

    @property
    def module(self) -> str:
        """The package.module of its target."""
        return self.target.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the function or class in the module."""
        return self.target.partition(":")[2]

    def wrote(self, filename: str) -> bool:
        """Whether a file is the user's: the module's own, one of its package, or one beside it that is not
        installed."""
        path, package = Path(filename), self.folder / self.module.partition(".")[0]
        if path == self.file or package in path.parents:
            return True
        beside = self.folder in path.parents and not {*_INSTALLED} & {*path.relative_to(self.folder).parts}
        return beside and not {*_INSTALLED} & {*self.folder.parts} and _TUNER not in path.parents

    def __str__(self) -> str:
        """As a person would write it: `spaces.py:my_space`."""
        from_here = Path(os.path.relpath(self.file))
        return f"{self.file if '..' in from_here.parts else from_here}:{self.name}"

    def not_run(self, key: str, where: str) -> InputError:
        """The error of a command that would have to run the code and may not. key: the setting that names it."""
        return InputError(
            f"{key}: {self} would be run, and this command runs no code that only a file names",
            where=where,
            expected="code that you named yourself on this command line",
            remedy=f"--allow-module {self.module}, if it is yours or you have read it",
        )


def find(target: str, *, key: str, where: str, home: Path, permission: Permission, typed: bool = False) -> Own:
    """Finds the code that `target` (package.module:name) names; imports nothing for it.

    key: the setting, for messages. where: the place where the setting is written. home: the folder of the file that
    names the code; the current folder for what was typed. Raises InputError where it is not there, or not the user's.
    """
    module, _, name = target.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise InputError(f"{key}: got `{target}`", where=where, expected="package.module:name")
    home = home.resolve()
    _refuse_standard(module, home, key, where)
    # The current folder too, which `python -m` has on the path and the command `tuner` has not
    entry, files = _found(module, [*_path(), home, Path.cwd()])
    for file in files:
        _refuse_from_a_run(module, file, where)
    named = permission.names(module)
    if not files or entry is None:
        if named and (spec := importlib.util.find_spec(module.partition(".")[0])) is not None and spec.origin:
            return Own(target, Path(spec.origin), Path(spec.origin).parent, True, typed)  # an editable install's finder
        raise InputError(f"{key}: no module `{module}` in {home}", where=where, expected=_EXPECTED)
    if not named and entry.resolve() != home:
        raise _elsewhere(key, module, files[-1], home, where)
    if not named:
        for file in files:
            _refuse_foreign(key, file, home, where)
    return Own(target, files[-1], entry, named or typed or permission.beside, typed)


def load(own: Own) -> Any:
    """Imports the module and returns its `own.name`; None where it has no such name. The module's folder is put last in
    sys.path, so that nothing in it hides an installed module. Raises whatever the module raises."""
    add_folders([str(own.folder)])
    _loaded.append(own)
    return getattr(importlib.import_module(own.module), own.name, None)


def add_folders(folders: Iterable[str]) -> None:
    """Adds folders to the end of sys.path, and remembers them for `search_folders`."""
    for folder in folders:
        if folder not in map(str, _path()):
            sys.path.append(folder)
        if folder not in _added:
            _added.append(folder)


def search_folders() -> list[str]:
    """The folders of user code that this process has in sys.path, and the current folder where it is there too: workers
    look there as well, after all else."""
    here = Path.cwd()
    return [*_added, *([str(here)] if here in _path() and str(here) not in _added else [])]


def loaded() -> list[Own]:
    """The user's code that this process has imported."""
    return list(_loaded)


_loaded: list[Own] = []
"""What `load` has imported."""
_added: list[str] = []
"""What `add_folders` has added."""
_INSTALLED = ("site-packages", "dist-packages")
_TUNER = Path(__file__).parent
_EXPECTED = "a module in the folder of the search file, or for what you type in the current folder"


def _path() -> list[Path]:
    return [Path(entry or os.curdir).absolute() for entry in sys.path]


def _refuse_standard(module: str, home: Path, key: str, where: str) -> None:
    top = module.partition(".")[0]
    if top not in sys.stdlib_module_names and top not in ("__main__", "tuner"):
        return
    shadow = next((home / name for name in (f"{top}.py", top) if (home / name).exists()), None)
    whose = "tuner's own" if top == "tuner" else "of Python's standard library"
    raise InputError(
        f"{key}: the module `{module}` is {whose}, and nothing of that is ever run",
        where=where,
        expected=_EXPECTED,
        remedy=f"give {shadow} another name" if shadow else "",
    )


def _elsewhere(key: str, module: str, file: Path, home: Path, where: str) -> InputError:
    top = module.partition(".")[0]
    if (home / f"{top}.py").exists() or (home / top).exists():
        remedy = f"give {top} in {home} another name: Python would take {file} for it"
    else:
        remedy = f"move it there, or --allow-module {module} if you know what it does"
    return InputError(f"{key}: `{module}` is {file}, and not in {home}", where=where, expected=_EXPECTED, remedy=remedy)


def _refuse_foreign(key: str, file: Path, home: Path, where: str) -> None:
    """Raises InputError for a link out of the folder, and for a file of another user in it (a shared folder, /tmp)."""
    real = file.resolve()
    if not real.is_relative_to(home):
        raise InputError(
            f"{key}: {file} is a link to {real}, which does not lie in {home}",
            where=where,
            expected=_EXPECTED,
            remedy="copy it, or --allow-module with its name if you know what it does",
        )
    if real.stat().st_uid not in (os.getuid(), 0, home.stat().st_uid):
        raise InputError(
            f"{key}: {file} belongs to another user than the folder around it",
            where=where,
            expected="code of your own",
            remedy="copy it once you have read it, or --allow-module with its name",
        )


def _refuse_from_a_run(module: str, file: Path, where: str) -> None:
    """Raises InputError for a file that lies in a run folder."""
    run = next((folder for folder in file.resolve().parents if (folder / "trials.jsonl").is_file()), None)
    if run is not None:
        raise InputError(
            f"{module!r} would be code out of the run folder {run}",
            where=where,
            expected="a module of your own: what lies in a run folder is looked at and never run",
            remedy="move it out of there once you have read it",
        )


def _found(module: str, path: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """The folder in which Python would find `module`, and the files that importing it would run: those of the packages
    around it, then its own. (None, []) where it would not be found.

    It does what Python's own finder does, which cannot be called: for a submodule it imports the package around it.
    """
    folders: Sequence[Path] = path
    files: list[Path] = []
    name, code = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            known = sys.modules[name]
            file = getattr(known, "__file__", None)
            code = Path(file) if file else None
            folders = [Path(folder) for folder in getattr(known, "__path__", ())]
        else:
            code, folders = _find_part(part, folders)
        if code is not None:
            files.append(code)
        elif not folders:
            return None, []
    if code is None:  # a folder without __init__.py is no module that runs
        return None, []
    return code.parents[module.count(".") + (code.stem == "__init__")], files


def _find_part(part: str, path: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """The file that importing `part` from the folders `path` would run, and the folders of its submodules. No file for
    a namespace package."""
    namespaces: list[Path] = []
    for entry in path:
        package = entry / part
        inner = next((file for file in (package / f"__init__{s}" for s in all_suffixes()) if file.is_file()), None)
        if inner is not None:
            return inner, [package]
        file = next((file for file in (entry / f"{part}{s}" for s in all_suffixes()) if file.is_file()), None)
        if file is not None:
            return file, []
        namespaces += [package] if package.is_dir() else []
    return None, namespaces
