"""Adapters on disk: the best few while a search runs, the winner in `best/` at its end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from tuner.contract import STATE
from tuner.results.folder import RunFolder
from tuner.results.model_card import model_card
from tuner.results.records import SearchRecord


def drop_state(folder: RunFolder, number: int) -> None:
    """Deletes what a trial that has ended kept in order to go on, over all its attempts."""
    for place in (folder.trial(number), *folder.trial(number).glob("attempt-*")):
        shutil.rmtree(place / STATE, ignore_errors=True)


def drop_surplus(folder: RunFolder, record: SearchRecord, keep: int, ended: int | None = None) -> None:
    """Deletes the adapters of ended trials outside the best `keep`, so that disk use does not grow with the search.

    ended: the trial that has just ended; it alone, or the one it pushed out of the best, can have become surplus. None
    looks through the whole folder.
    """
    best = [t.number for t in islice((t for t in record.ranked if t.adapter), keep + 1)]
    kept, next_best = set(best[:keep]), best[keep:]
    if ended is None:
        names = [place.name for place in folder.adapters.iterdir()] if folder.adapters.is_dir() else []
        have = [record.trials.get(int(name)) for name in names if name.isdigit()]
        surplus = [t.number for t in have if t is not None and t.has_ended and t.number not in kept]
    else:
        surplus = next_best if ended in kept else [ended]
    for number in surplus:
        shutil.rmtree(folder.trial(number), ignore_errors=True)


def write_best(
    folder: RunFolder, record: SearchRecord, *, train: Mapping[str, Any], resolved: Mapping[str, Any]
) -> Path | None:
    """Writes `best/`: the winner's PEFT adapter, `train.yaml`, `README.md` and, last, `manifest.json`.

    train: the experiment that trains the winner again. Written beside and renamed; a `manifest.json` means that all
    of it is there. Returns None where no trial left an adapter.
    """
    winner = record.best
    if winner is None or not winner.adapter or not (folder.path / winner.adapter).is_dir():
        return None
    fresh = folder.path / "best.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder.path / winner.adapter, fresh)
    header = f"# Trains trial {winner.number} of {folder.name} again: python -m tuner train {folder.best}/train.yaml\n"
    (fresh / "train.yaml").write_text(header + yaml.safe_dump(dict(train), sort_keys=False), encoding="utf-8")
    (fresh / "README.md").write_text(model_card(folder.name, record, winner, resolved), encoding="utf-8")
    manifest = {
        "name": folder.name,
        "trial": winner.number,
        "params": winner.params,
        "eval_loss": winner.best_eval_loss,
        "step": winner.best.step if winner.best else None,
        "files": {p.name: _sha256(p) for p in sorted(fresh.iterdir()) if p.is_file()},
    }
    (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    old = folder.path / "best.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.best.exists():
        folder.best.replace(old)
    fresh.replace(folder.best)
    shutil.rmtree(old, ignore_errors=True)
    return folder.best


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
