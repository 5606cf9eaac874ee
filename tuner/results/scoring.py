"""Scores the adapters of a run beside their base, on rows that no trial learned from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.contract import MODEL, InputError, Scored, ScoredRow, ScoreRequest, Scores, Tell, silent
from tuner.results import judging
from tuner.results.adapters import MANIFEST, checked_manifest, require_whole
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.own_functions import OwnFunction
from tuner.results.program_calls import Doing, call, log_beside, permitted, require_same_model
from tuner.results.records import RECIPE, SearchRecord
from tuner.results.sameness import ACCEPT, MADE_OF
from tuner.results.trial import TrialRecord
from tuner.results.untrusted_read import inside, is_plain_file

BASE, THE_RECIPE, WINNER = "base", "recipe", "winner"
_SHIPPED = "sft"
"""The program that scores what belongs to no run."""


@dataclass(frozen=True)
class Asked:
    """What is to be scored, and how."""

    rows: str
    """A file, a folder or a hub id."""
    metrics: tuple[str, ...]
    """The program's metrics."""
    own: tuple[OwnFunction, ...] = ()
    """Metrics of the user's own."""
    judge: OwnFunction | None = None
    """A function that says which of two answers is better."""
    trials: tuple[int, ...] = ()
    """Trials beside the base; empty: the recipe and the winner."""
    more: Mapping[str, Any] | None = None
    """Further fields of the `ScoreRequest`."""


@dataclass(frozen=True)
class Evaluated:
    """What was found."""

    name: str
    """Of the run or the model."""
    rows: str
    scored: Scored
    trials: Mapping[str, int]
    """By candidate: its trial."""
    judged: judging.Judged | None = None
    notes: tuple[str, ...] = ()


def score_run(
    folder: RunFolder,
    asked: Asked,
    *,
    program: str | None = None,
    trust_code: bool = False,
    modules: Sequence[str] = (),
    accept_changes: bool = False,
    tell: Tell = silent,
) -> Evaluated:
    """Scores the base, the recipe and the winner of a run, or its base and other trials. Raises InputError and Fault.

    program, trust_code, modules, accept_changes: as in `export_best`. tell: gets how far it is.
    """
    record = folder.record()
    candidates, trials, notes = _candidates(folder, record, asked.trials)
    log = log_beside(folder, "evaluate", Path.cwd() / folder.name)
    resolved = permitted(folder, log, Doing("an evaluation", "evaluate"), program, trust_code, modules)
    again = run_command_line(folder.path, "evaluate", folder.name, "--data", asked.rows, ACCEPT)
    without = "evaluate on the machine that has it"
    notes += require_same_model(folder, resolved, log, without, again, accept=accept_changes)
    request = ScoreRequest(located(asked.rows), candidates, asked.metrics, format=str(record.facts.get("format", "")),
                           **(asked.more or {}))  # fmt: skip
    scored = _read(call(log, resolved, "score", asdict(request), tell=tell))
    return _complete(folder.name, asked, scored, trials, notes, tell)


def score_model(source: str, asked: Asked, tell: Tell = silent) -> Evaluated:
    """Scores a model, or the adapter in a folder beside its base, which belongs to no run. Raises InputError and Fault.

    source: a folder, or a model's id on the hub.
    """
    from tuner.subprocess_call import SubprocessProgram

    adapter = is_plain_file(Path(source) / "adapter_config.json")
    said = checked_manifest(Path(source)) if is_plain_file(Path(source) / MANIFEST) else {}
    known = said.get(MADE_OF)
    candidates = {BASE: MODEL, "adapter": located(source)} if adapter else {"model": MODEL}
    request = ScoreRequest(
        located(asked.rows),
        candidates,
        asked.metrics,
        source=located(source),
        made_of=known if isinstance(known, dict) else {},
        **(asked.more or {}),
    )
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        work = SubprocessProgram(_SHIPPED, "score", None, asdict(request), log=Path(place) / "evaluate.log")
        try:
            scored = _read(work.result(tell))
        finally:
            work.close()
    return _complete(source, asked, scored, {}, (), tell)


def located(name: str) -> str:
    """The absolute path of what is here; a hub id as it is."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def _candidates(
    folder: RunFolder, record: SearchRecord, numbers: Sequence[int]
) -> tuple[dict[str, str], dict[str, int], tuple[str, ...]]:
    """By name, the adapters that are scored, and their trials; and notes for the user."""
    adapters, trials = {BASE: MODEL}, dict[str, int]()
    if numbers:
        for number in numbers:
            adapters[f"trial {number}"] = str(_adapter(folder, record, number))
            trials[f"trial {number}"] = number
        return adapters, trials, ()
    if record.best is None:
        raise InputError(
            "there is no best adapter",
            where=str(folder.path),
            expected="a search with at least one usable trial",
            remedy=run_command_line(folder.path, "status", folder.name),
        )
    notes: tuple[str, ...] = ()
    if record.best.number != RECIPE and record.recipe is not None:
        try:
            adapters[THE_RECIPE] = str(_adapter(folder, record, RECIPE))
            trials[THE_RECIPE] = RECIPE
        except InputError as error:
            notes = (f"the recipe is not beside the winner: {error.what}",)
    adapters[WINNER] = str(_adapter(folder, record, record.best.number))
    trials[WINNER] = record.best.number
    return adapters, trials, notes


def _adapter(folder: RunFolder, record: SearchRecord, number: int) -> Path:
    """The adapter of a trial, in `best/` or where the trial left it. Raises InputError where it was not kept."""
    trial = record.trials.get(number)
    if trial is None:
        known = f"trials 0 to {max(record.trials)}" if record.trials else "no trial"
        raise InputError(f"there is no trial {number}", where=str(folder.path), expected=known)
    if is_plain_file(folder.best / MANIFEST) and inside(folder.path, folder.best) is not None:
        said = checked_manifest(folder.best)
        if said.get("trial") == number:
            return folder.best.resolve()
    place = inside(folder.path, trial.adapter)
    if place is not None and place.is_dir():
        require_whole(place)
        return place.resolve()
    raise InputError(
        f"the adapter of trial {number} was not kept" if trial.adapter else f"trial {number} has left no adapter",
        where=str(folder.path),
        expected=_kept(folder, record),
        remedy="a search with a larger run.keep_adapters keeps those of more trials",
    )


def _kept(folder: RunFolder, record: SearchRecord) -> str:
    have = [trial.number for trial in record.trials.values() if _is_kept(folder, trial)]
    return f"a trial whose adapter is kept: {', '.join(map(str, sorted(have)))}" if have else "a kept adapter"


def _is_kept(folder: RunFolder, trial: TrialRecord) -> bool:
    place = inside(folder.path, trial.adapter)
    return place is not None and place.is_dir()


def _read(said: Mapping[str, Any]) -> Scored:
    """A `Scored` that was JSON."""
    rows = [ScoredRow(**row) for row in said["rows"]]
    return Scored(**{**said, "rows": rows, "candidates": [Scores(**one) for one in said["candidates"]]})


def _complete(
    name: str, asked: Asked, scored: Scored, trials: Mapping[str, int], notes: tuple[str, ...], tell: Tell
) -> Evaluated:
    """Adds the metrics of the user's own, and the judge's verdicts."""
    for function in asked.own:
        scored.directions[function.name] = "maximize"
        for candidate in scored.candidates:
            tell(f"{candidate.name}: {function.name}")
            values, why = _values(function, scored.rows, candidate.answers)
            if why:
                candidate.missing[function.name] = why
            else:
                candidate.metrics[function.name] = values
        function.close()
    tell("")
    judged = None
    if asked.judge is not None and len(scored.candidates) > 1:
        judged = judging.judge(asked.judge, scored, tell)
    return Evaluated(name, asked.rows, scored, trials, judged, (*notes, *scored.notes))


def _values(
    function: OwnFunction, rows: Sequence[ScoredRow], answers: Sequence[str | None]
) -> tuple[list[float | None], str]:
    """The function's value for each answer, and "": or no values, and why."""
    found: list[float | None] = []
    for row, answer in zip(rows, answers, strict=True):
        if answer is None:
            found.append(None)
            continue
        value, why = function.call(row.prompt, row.reference, answer)
        if why:
            return [], f"at {row.where}: {why}"
        if isinstance(value, bool | int | float) and math.isfinite(value):
            found.append(float(value))
        else:
            return [], f"at {row.where}: gave {value!r:.60}, and not a number"
    return found, ""
