"""Writes all that is known of one trial: its parameters, its curve, its set-up and how it ended."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.contract import Objective, Status
from tuner.report import formatting as words
from tuner.report import standing
from tuner.report.curve import plot
from tuner.report.lines import Line, clean, crop, labelled, line, line_width, pad, title, width_of
from tuner.report.plain import trainable_text
from tuner.report.table import parameters
from tuner.results.records import RECIPE, SearchRecord, TrialRecord

_STYLE = {Status.COMPLETED: "good", Status.PRUNED: "", Status.FAILED: "bad", Status.STOPPED: "warn"}


def trial_report(record: SearchRecord, number: int, width: int, *, adapter: str = "", log: str = "") -> list[Line]:
    """All that is known of trial `number`, its curve drawn over the recipe's.

    adapter: its adapter's folder, "" if it was not kept. log: the file with what the libraries printed while it ran.
    """
    trial = record.trials[number]
    recipe = record.recipe if number != RECIPE else None
    out = [_headline(record, trial, width), ()]
    out += _parameters(record, trial, recipe)
    curve = plot(trial, width=max(20, min(72, width - 14)), recipe=recipe)
    out += [(), line((record.compared_by.title, "head")), *curve] if curve else []
    out.append(())
    out += _facts(record, trial, width, adapter)
    out += _ending(trial, width)
    out += _traceback(trial)
    return out + ([line(("log    ", "head"), (log, "code"))] if log else [])


def _headline(record: SearchRecord, trial: TrialRecord, width: int) -> Line:
    facts = [f"step {standing.place(trial)}"] if trial.points or trial.max_steps else []
    facts += [f"best {record.objective.noun} {words.measured(trial.best_value)}"] if trial.best else []
    if trial is record.best:
        facts.append("the winner")
    if trial.number == RECIPE:
        facts.append("the recipe")
    if trial.added_by:
        facts.append(f"added by {'you' if trial.added_by == 'user' else clean(trial.added_by)}")
    seconds = (trial.ended or record.updated or 0.0) - (trial.started or 0.0) if trial.started else 0.0
    facts += [words.duration(seconds)] if seconds > 0 else []
    name = title(f"{record.name} trial {trial.number}".lstrip())
    while facts[1:] and line_width(line(name, " · ".join(facts))) > width:
        facts.pop()  # the last matters least
    return crop(line(name, " · ".join(facts)), width)


def _parameters(record: SearchRecord, trial: TrialRecord, recipe: TrialRecord | None) -> list[Line]:
    """Full names and full values, with the recipe's value if it differs."""
    order = parameters(record)
    names = [n for n in order if n in trial.params] + [n for n in trial.params if n not in order]
    if not names:
        return [line(("  no parameters: the settings as written", "dim"))]
    own = [clean(words.exact(trial.params[name])) for name in names]
    name_width, value_width = max(width_of(n) for n in names), max(width_of(text) for text in own)
    out = []
    for name, text in zip(names, own, strict=True):
        row = [(f"  {name:<{name_width}}  ", ""), (pad(text, value_width), "strong")]
        if recipe and name in recipe.params and recipe.params[name] != trial.params[name]:
            row.append((f"  recipe {clean(words.exact(recipe.params[name]))}", "dim"))
        out.append(tuple(row))
    return out


def _facts(record: SearchRecord, trial: TrialRecord, width: int, adapter: str) -> list[Line]:
    out: list[Line] = []
    if trial.setup:
        out += labelled("set-up", ", ".join(p for p in (trainable_text(trial), _details(trial)) if p), width)
    last = trial.points[-1] if trial.points else None
    if last:
        spent = [f"{words.count(trial.tokens)} training tokens"] if trial.tokens else []
        spent += [f"{words.duration(last.seconds)} at the last evaluation"] if last.seconds else []
        spent += [f"{words.size(last.memory)} of accelerator memory"] if last.memory else []
        out += labelled("spent", ", ".join(spent), width) if spent else []
        if last.train_loss is not None or len(record.objectives) > 1:
            told = [] if last.train_loss is None else [f"train {words.measured(last.train_loss)}"]
            told += [f"{_kind(o)} {words.measured(last.metrics.get(o.name))}" for o in record.objectives]
            out += labelled("last", ", ".join(told), width)
        named = {objective.name for objective in record.objectives}
        more = [
            f"{clean(name.replace('_', ' '))} {words.measured(v)}"
            for name, v in last.metrics.items()
            if name not in named
        ]
        out += labelled("also", ", ".join(more), width) if more else []
    if trial.attempt > 1:
        out += labelled("attempt", str(trial.attempt), width)
    if adapter:
        out.append(line(("adapter", "head"), " ", (adapter, "code")))
    return out


def _kind(objective: Objective) -> str:
    """The first word of an objective's title: "validation" of "validation loss", beside "train" of the train loss."""
    return objective.title.removesuffix(objective.short).strip() or objective.title


def _details(trial: TrialRecord) -> str:
    told = ("max_steps", "trainable_parameters", "total_parameters", "parts", "pid")
    rest = {k: v for k, v in trial.setup.items() if k not in told and v is not None and not isinstance(v, Mapping)}
    return ", ".join(f"{k.replace('_', ' ')} {clean(words.value(v))}" for k, v in rest.items())


def _ending(trial: TrialRecord, width: int) -> list[Line]:
    style = _STYLE[trial.status] if trial.status else "run" if trial.is_running else "warn"
    out = labelled("ended" if trial.has_ended else "now", clean(trial.ending), width, style)
    out += labelled("try", clean(trial.remedy), width) if trial.remedy else []
    return out


def _traceback(trial: TrialRecord) -> list[Line]:
    if not trial.traceback:
        return []
    rows = [line((f"  {_printable(row)}", "dim")) for row in trial.traceback.rstrip().splitlines()]
    return [line(("traceback", "head")), *rows]


def _printable(row: str) -> str:
    """A row of a traceback, with its indentation and without control characters."""
    return "".join(c if c.isprintable() else " " for c in row.expandtabs(4))
