"""What may be imported: what a user names, and nothing that came with somebody's run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import all_suffixes
from pathlib import Path

from tuner.contract import InputError


def refuse_from_a_run(module: str, where: str) -> None:
    """Raises InputError where `module`, or a package around it, would be imported from within a run folder.

    `plan` of a file out of a run folder imports the program that the file names, and one that was planted beside it
    would be run by looking at it. Nothing is imported to find that out.
    """
    path: Sequence[str] = sys.path
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            path = list(getattr(sys.modules[name], "__path__", ()))
            continue
        code, path = _found(part, path)
        run = _run_around(code) if code else None
        if run is not None:
            raise InputError(
                f"{module!r} would be code out of the run folder {run}",
                where=where,
                expected="a module of your own: what lies in a run folder is looked at and never run",
                remedy="move it out of there once you have read it",
            )


def _found(part: str, path: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file that importing `part` from `path` would run, and where its submodules are looked for.

    As Python's own finder does it, which cannot be asked: below a package without `__init__.py` it wants the package
    imported.
    """
    spaces: list[str] = []
    for entry in path:
        package = Path(entry, part)
        inner = next((file for file in (package / f"__init__{s}" for s in all_suffixes()) if file.is_file()), None)
        if inner is not None:
            return inner, [str(package)]
        file = next((file for file in (Path(entry, part + s) for s in all_suffixes()) if file.is_file()), None)
        if file is not None:
            return file, []
        spaces += [str(package)] if package.is_dir() else []
    return None, spaces


def _run_around(file: Path) -> Path | None:
    return next((folder for folder in file.resolve().parents if (folder / "trials.jsonl").is_file()), None)
