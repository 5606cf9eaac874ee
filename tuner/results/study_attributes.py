"""What a search says of itself, and of each trial, in the attributes of its Optuna study.

The driver writes a search's attributes into the study at the start and at the end of a session. Those of trials, which
change with every report, are made from the ledger where the study is shown: they cost the driver nothing, and a run
folder of any version has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.contract import Budget, Objective
from tuner.redaction import redact
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord, TrialRecord
from tuner.results.untrusted_read import inside

STATE = "state"
"""The attribute that says how far a search is; the driver writes it at the start and at the end of a session."""


def search_attributes(
    settings: Mapping[str, Any],
    record: SearchRecord,
    recipe: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
) -> dict[str, str]:
    """What a search is made of, by name: its state, and those of model, data, recipe, budget, objective and search that
    it has.

    settings: as `resolved.json` has them. recipe: the parameters of trial 0. budget: the program's; None where only the
    settings are known.
    """
    told = {
        STATE: "running",
        "model": _told(_section(settings, "model")),
        "data": "; ".join(filter(None, (_told(_section(settings, "data")), *_rows(record.facts)))),
        "recipe": _words(recipe or {}),
        "budget": _budget(settings, record, budget),
        "objective": _objective(record.objective),
        "search": _search(settings),
    }
    return {name: redact(text) for name, text in told.items() if text}


def state_of(record: SearchRecord, how: str) -> str:
    """How far a search is: "running: 7 of 16 trials ended; best: trial 3, eval_loss 2.31". how: the first word."""
    told = f"{how}: {record.num_ended} of {max(record.num_trials, len(record.trials))} trials ended"
    if record.best is not None:
        told += f"; best: trial {record.best.number}, {record.objective.name} {record.best.best_value:.4g}"
    return redact(told)


def standing(record: SearchRecord, *, driven: bool) -> str:
    """Whether a search runs, or how it ended, in a few words. driven: whether a driver on this machine has it now."""
    if record.halt_reason or record.halt_message:
        return f"halted ({record.halt_message or record.halt_reason})"
    if record.finished:
        return record.outcome or "done"
    if not driven:
        return "not finished, and no driver on this machine has it (a resume goes on)"
    return f"paused ({record.paused})" if record.paused else "running"


def trial_attributes(folder: RunFolder, record: SearchRecord, trial: TrialRecord) -> dict[str, str | int | float]:
    """What is known of a trial, by name: its ending, the reason, what to do about it, where its adapter and its log
    are; those that it has."""
    told: dict[str, str | int | float] = {"ending": redact(trial.ending)}
    if trial.reason is not None:
        told["reason"] = str(trial.reason)
    if trial.remedy:
        told["remedy"] = redact(trial.remedy)
    told["steps"] = f"{trial.step} of {trial.max_steps}" if trial.max_steps else trial.step
    told["tokens"] = trial.tokens
    if trial.attempt > 1:
        told["attempt"] = trial.attempt
    told["adapter"] = _adapter(folder, record, trial)
    if folder.log(trial.number).is_file():
        told["log"] = str(folder.log(trial.number).relative_to(folder.path))
    return told


def _adapter(folder: RunFolder, record: SearchRecord, trial: TrialRecord) -> str:
    """The place of its adapter, relative to the run folder, or why it has none."""
    if trial.adapter is None:
        return "none was saved"
    if record.finished and record.best is trial and folder.best.is_dir():
        return "best"
    place = inside(folder.path, trial.adapter)
    kept = place is not None and place.is_dir()
    return trial.adapter if kept else "not in the run folder: those of the best trials are kept (run.keep_adapters)"


def _told(section: Mapping[str, Any]) -> str:
    """The settings of a section that say something, by their own names: a program's settings are its own affair."""
    words = {}
    for name, value in section.items():
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if kind not in (None, "", "none", False) and isinstance(kind, str | int | float):
            words[name] = kind
    return _words(words)


def _rows(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, fact in facts.items():
        if isinstance(fact, Mapping) and isinstance(rows := fact.get("rows"), int):
            tokens = fact.get("tokens")
            yield f"{name}: {rows:,} rows" + (f", {tokens:,} tokens" if isinstance(tokens, int) else "")


def _budget(settings: Mapping[str, Any], record: SearchRecord, budget: Budget | None) -> str:
    epochs, steps = (budget.epochs, budget.steps) if budget else (None, None)
    if steps is None and epochs is None and record.recipe is not None:
        steps = record.recipe.max_steps
    each = f"{epochs:g} epochs" if isinstance(epochs, int | float) else f"{steps} steps" if steps is not None else ""
    planned = record.num_trials or _section(settings, "search").get("num_trials")
    return f"{planned} trials" + (f" of at most {each}" if each else "")


def _objective(objective: Objective) -> str:
    better = "less is better" if objective.direction == "minimize" else "more is better"
    label = f" ({objective.label})" if objective.label else ""
    return f"{objective.name}{label}, {better}"


def _search(settings: Mapping[str, Any]) -> str:
    search = _section(settings, "search")
    kinds = {
        "sampler": _section(search, "sampler").get("kind"),
        "scheduler": _section(settings, "scheduler").get("kind"),
    }
    return _words({**{name: kind for name, kind in kinds.items() if kind}, "seed": search.get("seed")})


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}


def _words(values: Mapping[str, Any]) -> str:
    """ "learning_rate 0.0003, lora_r 16"."""
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items() if value is not None)


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(map(str, value))
    return str(value)
