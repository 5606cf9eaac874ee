"""One point of a search, trained again: the winner or another trial, at another length, on other rows, with several
seeds, or on from its adapter. It is a search of one point, with a run folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.config import Experiment, SpaceSource, load_resolved
from tuner.contract import InputError
from tuner.driver.permits import with_remembered
from tuner.driver.resolved_settings import fixed_experiment, read_settings
from tuner.importing import Permission
from tuner.results.adapters import adapter_of, require_whole
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord, TrialRecord

MOST_SEEDS = 256


@dataclass(frozen=True)
class Changes:
    """What a training changes of the settings that it is made of."""

    overrides: tuple[str, ...] = ()
    """`a.b=c`, as written after --set."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Values of flags by dotted name."""
    epochs: float | None = None
    """The length in passes over the rows; None: as the settings say."""
    seeds: int = 1
    """How often the point is trained, with a seed each."""


def one_point(seeds: int = 1) -> dict[str, Any]:
    """The settings by dotted name of a search of one point that nothing stops early. Raises InputError for a number of
    seeds that is none."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"got {seeds}", where="--seeds", expected=f"1 to {MOST_SEEDS}")
    return {
        "search.num_trials": seeds,
        "search.seeds": seeds,
        "search.sampler": "tpe",
        "scheduler.kind": "none",
    }


def without_space(experiment: Experiment) -> Experiment:
    """The experiment with nothing to search. The settings that its space brought stay: they are merged already."""
    code = {key: own for key, own in experiment.code.items() if key != "search.space"}
    space = SpaceSource("one point", experiment.space.source, {"parameters": {}})
    return replace(experiment, space=space, code=code)


def changed(experiment: Experiment, epochs: float | None, adapter: str | None = None) -> tuple[list[str], list[str]]:
    """What the program changes for another length, or to go on from an adapter, as --set takes it; and notes."""
    again = experiment.program_class.retraining(experiment.settings, epochs=epochs, adapter=adapter)
    return [f"{key}={json.dumps(value)}" for key, value in again.changes.items()], list(again.notes)


def of_run(
    folder: RunFolder,
    number: int | None,
    changes: Changes,
    permission: Permission,
    *,
    from_adapter: bool = False,
) -> Experiment:
    """The experiment that trains a trial of a run again. number: which; None: the winner. permission: which code of the
    user's own may be run, beside what they let that search run. from_adapter: goes on from the trial's adapter.

    Raises InputError where there is no such trial or adapter, and for changes that cannot be made.
    """
    record = folder.record()
    trial = _chosen(record, folder, number)
    adapter = str(_adapter(folder, record, trial)) if from_adapter else None
    permission = with_remembered(permission, record.settings_digest)
    searched = read_settings(folder, record.settings_digest, permission)
    written, source = fixed_experiment(searched, trial.params, record.facts), str(folder.resolved)
    own, notes = changed(load_resolved(written, source, permission=permission), changes.epochs, adapter)
    flags = {**changes.flags, **one_point(changes.seeds)}
    given = (text.partition("=")[0].strip() for text in changes.overrides)
    if from_adapter and flags.get("search.seed") is None and "search.seed" not in given:
        # With the search's seed the rows that the adapter has just learned would come first once more: with 37 steps
        # after 20 the demo's winner went from 4.226 to 4.374, with another seed to 4.187
        flags["search.seed"] = (searched.search.seed + 1) % 2**32
        notes.append(f"the seed is {flags['search.seed']}, so that the rows come in another order")
    experiment = load_resolved(written, source, (*changes.overrides, *own), flags, permission)
    who = f"trial {trial.number} of {folder.name}" + ("" if number is not None else ", the winner")
    return replace(experiment, notes=(f"trains {who}", *notes, *experiment.notes))


def free_name(folder: RunFolder, names: Sequence[str]) -> str:
    """A name for the training of a run that is not among `names`: "first-train", "first-train-2", ..."""
    stem = f"{folder.name[:56]}-train"
    return next(name for n in range(1, len(names) + 2) if (name := f"{stem}-{n}" if n > 1 else stem) not in names)


def _chosen(record: SearchRecord, folder: RunFolder, number: int | None) -> TrialRecord:
    if number is None:
        if record.best is None:
            raise InputError(
                f"no trial of {folder.name} has ended with a {record.objective.title} that can be compared",
                where=str(folder.path),
                expected="a search with a winner, or --trial N",
            )
        return record.best
    trial = record.trials.get(number)
    if trial is None:
        last = max(record.trials, default=None)
        raise InputError(
            f"there is no trial {number} in {folder.name}",
            where="--trial",
            expected=f"0 to {last}" if last is not None else "a search that has begun a trial",
        )
    return trial


def _adapter(folder: RunFolder, record: SearchRecord, trial: TrialRecord) -> Path:
    place = adapter_of(folder, record, trial.number)
    if place is None:
        kept = [t.number for t in record.ranked if adapter_of(folder, record, t.number) is not None]
        raise InputError(
            f"the adapter of trial {trial.number} of {folder.name} is not kept",
            where="--from-adapter",
            expected=f"a trial whose adapter is: {', '.join(map(str, kept))}" if kept else "a run that keeps adapters",
            remedy="train it anew without --from-adapter; run.keep_adapters says how many a search keeps",
        )
    require_whole(place)
    return place
