"""Keeps adapters on disk: those of the best trials while a search runs, the winner's in `best/` at its end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from tuner.contract import COMPANIONS, STATE, SUMS, Card, InputError
from tuner.results import earlier_keys, sameness
from tuner.results.command_line import command_line
from tuner.results.folder import RunFolder
from tuner.results.model_card import model_card
from tuner.results.records import RECIPE, SearchRecord
from tuner.results.untrusted_read import inside, is_plain_file, read_object

MANIFEST = "manifest.json"
"""Written last: if it is there, `best/` is complete."""


def drop_state(folder: RunFolder, number: int) -> None:
    """Deletes the saved states of all attempts of a trial that has ended."""
    for place in (folder.trial(number), *folder.trial(number).glob("attempt-*")):
        shutil.rmtree(place / STATE, ignore_errors=True)


def drop_surplus(folder: RunFolder, record: SearchRecord, keep: int, ended: int | None = None) -> None:
    """Deletes the adapters of ended trials outside the best `keep`, so that disk use does not grow with the search. The
    recipe's stays beside them: `evaluate` shows the winner beside it.

    ended: the trial that has just ended; only it, or the one that it pushed out of the best, can have become surplus.
    None looks at all trials in the folder, also for states that could not be deleted when their trials ended.
    """
    best = [t.number for t in islice((t for t in record.ranked if t.adapter), keep + 1)]
    kept, next_best = set(best[:keep]), best[keep:]
    recipe = record.trials.get(RECIPE)
    beside = {RECIPE} if recipe is not None and recipe.has_ended and recipe.is_usable else set()
    if ended is None:
        names = os.listdir(folder.adapters) if folder.adapters.is_dir() else []  # noqa: PTH208
        have = [record.trials.get(int(name)) for name in names if name.isascii() and name.isdigit()]
        over = [t.number for t in have if t is not None and t.has_ended]
        surplus = [number for number in over if number not in kept | beside]
        for number in (kept | beside).intersection(over):
            drop_state(folder, number)
    else:
        surplus = [number for number in (next_best if ended in kept else [ended]) if number not in beside]
    for number in surplus:
        shutil.rmtree(folder.trial(number), ignore_errors=True)


def adapter_of(folder: RunFolder, record: SearchRecord, number: int) -> Path | None:
    """Where a trial's adapter is: only the best few are kept, the winner's in `best/`; None where it is not kept."""
    trial = record.trials[number]
    if record.best is trial and (folder.best / MANIFEST).is_file() and inside(folder.path, folder.best) is not None:
        return folder.best
    place = inside(folder.path, trial.adapter)
    return place if place is not None and place.is_dir() else None


def write_best(
    folder: RunFolder,
    record: SearchRecord,
    *,
    train: Mapping[str, Any],
    resolved: Mapping[str, Any],
    card: Card | None = None,
) -> Path | None:
    """Writes `best/`: the winner's PEFT adapter with its companions, `train.yaml`, `README.md` and, last,
    `manifest.json`.

    train: the experiment that trains the winner again. resolved: the search's settings. card: what its program says of
    the adapter; None: nothing. The folder is written as `best.new` and renamed. Returns it, or None if there is no
    winner with an adapter in the run folder. Raises OSError if it cannot be written, and InputError where the adapter
    is damaged; an earlier `best/` stays.
    """
    winner = record.best
    adapter = inside(folder.path, winner.adapter) if winner is not None else None
    if winner is None or adapter is None or not adapter.is_dir():
        return None
    fresh = folder.path / "best.new"
    _remove(fresh)
    try:
        companions = inside(folder.path, folder.data / COMPANIONS)
        if companions is not None and companions.is_dir():
            shutil.copytree(companions, fresh, ignore=_not_plain)
        shutil.copytree(adapter, fresh, ignore=_not_plain, dirs_exist_ok=True)
        require_whole(fresh, adapter)
        (fresh / SUMS).unlink(missing_ok=True)  # the manifest has them, and those of the other files
        again = command_line("train", f"{folder.best}/train.yaml")
        header = f"# Trains trial {winner.number} of {folder.name} again: {again}\n"
        (fresh / "train.yaml").write_text(header + yaml.safe_dump(dict(train), sort_keys=False), encoding="utf-8")
        (fresh / "README.md").write_text(
            model_card(folder.name, record, winner, resolved, card or Card()), encoding="utf-8"
        )
        write_manifest(
            fresh,
            {
                "name": folder.name,
                "trial": winner.number,
                "params": winner.params,
                **earlier_keys.last(winner.best_metrics),
                "metrics": dict(winner.best_metrics),
                "objectives": [objective.to_dict() for objective in record.objectives],
                "step": winner.best.step if winner.best else None,
                sameness.MADE_OF: sameness.parts(record.facts),
            },
        )
    except (OSError, InputError):
        shutil.rmtree(fresh, ignore_errors=True)  # it is incomplete; an earlier `best/` is untouched
        raise
    old = folder.path / "best.old"
    _remove(old)
    if os.path.lexists(folder.best):
        folder.best.replace(old)
    fresh.replace(folder.best)
    _remove(old)
    return folder.best


def require_whole(adapter: Path, told: Path | None = None) -> None:
    """Raises InputError where the files of an adapter are not those that its trial wrote, as far as the trial left
    checksums. told: the folder that the message names, where `adapter` is a copy of it."""
    if not is_plain_file(adapter / SUMS):
        return
    for name, sum_ in read_object(adapter / SUMS).items():
        place = inside(adapter, name)
        if place is None or not is_plain_file(place) or _sha256(place) != sum_:
            raise InputError(
                "is damaged: it is not what the trial wrote",
                where=str((told or adapter) / name),
                expected="the file as the trial left it (its SHA-256 does not fit)",
                remedy="restore it from a backup, or train the trial again: python -m tuner train",
            )


def _remove(place: Path) -> None:
    """Removes a folder, or a file or link of its name."""
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
    else:
        shutil.rmtree(place, ignore_errors=True)


def write_manifest(best: Path, about: Mapping[str, Any]) -> None:
    """Writes `manifest.json`: `about`, the SHA-256 of every other file in `best`, and one of the manifest itself."""
    files = {p.relative_to(best).as_posix(): _sha256(p) for p in sorted(best.rglob("*")) if is_plain_file(p)}
    files.pop(MANIFEST, None)
    said = {**about, "files": files}
    text = json.dumps({**said, "sha256": _sum_of(said)}, indent=2, allow_nan=False)
    (best / MANIFEST).write_text(text + "\n", encoding="utf-8")


def checked_manifest(best: Path) -> dict[str, Any]:
    """The manifest of `best/`, after a check of every file that it names.

    Raises InputError with the name of a file that is damaged, missing, or outside the folder.
    """
    said = read_object(best / MANIFEST)
    files, told = said.get("files"), said.pop("sha256", None)
    if not isinstance(files, dict) or told != _sum_of(said):
        raise _damaged(best / MANIFEST)
    for name, sum_ in files.items():
        place = inside(best, name)
        if place is None or not is_plain_file(place):
            raise InputError("is not there, or is no plain file", where=str(best / name), expected="a file of best/")
        if _sha256(place) != sum_:
            raise _damaged(place)
    return said


def _damaged(path: Path) -> InputError:
    return InputError(
        "is damaged: it is not what was written",
        where=str(path),
        expected="the file as the search left it (its SHA-256 does not fit)",
        remedy="restore it from a backup; a resume of the search writes best/ anew from adapters/",
    )


def _not_plain(folder: str, names: list[str]) -> list[str]:
    """The names that a copy leaves out: links, which may lead out of the run folder or in circles, pipes, devices."""
    here = Path(folder)
    return [n for n in names if not is_plain_file(here / n) and ((here / n).is_symlink() or not (here / n).is_dir())]


def _sum_of(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
