"""Writes what a search would do, as text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.addresses import AUTO, joins
from tuner.contract import Budget, Look
from tuner.error_text import shown_path
from tuner.report import formatting as words
from tuner.report.data import short_notes, short_report
from tuner.report.lines import Line, clean, crop, labelled, line, line_width, pad, title, width_of, wrap
from tuner.report.outlook import outlook_lines
from tuner.scheduling.algorithms import registered
from tuner.space.parameters import shown


def plan_report(plan: Any, width: int, look: Look | None = None, refused: str = "", outlook: Any = None) -> list[Line]:
    """The text of a `tuner.driver.plan.Plan`. look: at its rows, where they are on this machine. refused: the error
    that the search would end with. outlook: what it is expected to take (`tuner.driver.outlook`)."""
    experiment = plan.experiment
    out = _headline(experiment, width)
    for name, section in _sections(experiment.settings):
        out += labelled(name, section, width)
    if plan.base:
        out += labelled("base", clean(plan.base), width)
    out += short_report(look, width) if look else []
    out += labelled("wrong", clean(refused), width, "bad") if refused else []
    out += labelled("trial", _budget(plan.budget), width)
    out += _stopping(plan, width)
    out += labelled("uses", _workers(experiment, plan.trials_per_gpu), width)
    for key, own in experiment.code.items():
        out += labelled("code", _code(key, own), width)
    if memory := plan.memory:
        out += labelled("memory", _memory(memory, plan), width)
    out += outlook_lines(outlook, plan, width) if outlook is not None else []
    out += [(), *_space(plan, width)]
    told = (*plan.notes, *(short_notes(look) if look else ()), *(outlook.notes if outlook is not None else ()))
    notes = [row for note in told for row in labelled("note", clean(note), width, "warn")]
    return out + ([(), *notes] if notes else [])


def _headline(experiment: Any, width: int) -> list[Line]:
    search = experiment.search
    facts = [words.plural(search.num_trials, "trial"), f"sampler {_kind(search.sampler)}", f"seed {search.seed}"]
    where = f"{str(experiment.run.storage_path).rstrip('/')}/{experiment.run.name or '<date-time>'}"
    one_line = line(title(experiment.run.name or "search"), " · ".join([*facts, where]))
    if line_width(one_line) <= width:
        return [one_line]
    return [crop(line(title(experiment.run.name or "search"), " · ".join(facts)), width), *labelled("in", where, width)]


def _kind(settings: Any) -> str:
    """ "tpe", or "tpe (n_startup_trials 4)" where an option was set."""
    options = {k: v for k, v in settings.model_dump(exclude_defaults=True).items() if k != "kind"}
    told = ", ".join(f"{k} {shown(v)}" for k, v in options.items())
    return f"{settings.kind} ({told})" if told else str(settings.kind)


def _sections(settings: Any) -> list[tuple[str, str]]:
    """The program's sections, each with what differs from its defaults."""
    told = []
    dumped = settings.model_dump(mode="json")
    for name, section in settings:
        values = dumped[name]
        if not isinstance(values, Mapping):
            told += [(name, _setting(values))] if section != type(settings).model_fields[name].default else []
            continue
        usual = _defaults(type(section))
        changed = [f"{k} {_setting(v)}" for k, v in values.items() if v is not None and v != usual.get(k)]
        told.append((name, ", ".join(changed) or "as by default"))
    return told


def _defaults(section: Any) -> dict[str, Any]:
    """The defaults of a pydantic section, as its JSON has them; without its required settings, which have none."""
    optional = {name: field for name, field in section.model_fields.items() if not field.is_required()}
    given = section.model_construct(**{n: f.get_default(call_default_factory=True) for n, f in optional.items()})
    dumped: dict[str, Any] = given.model_dump(mode="json", include=set(optional), warnings=False)
    return dumped


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        kind = str(value.get("kind", ""))
        rest = ", ".join(f"{k} {shown(v)}" for k, v in value.items() if k != "kind" and v is not None)
        return f"{kind} ({rest})".strip() if rest else kind
    if isinstance(value, str) and value.startswith(os.sep):
        return clean(shown_path(Path(value)))
    return clean(shown(value))


def _budget(budget: Budget) -> str:
    if budget.steps:
        return words.plural(budget.steps, "optimizer step")
    epochs = budget.epochs or 0.0
    return f"{epochs:g} epoch of the training data" if epochs == 1 else f"{epochs:g} epochs of the training data"


def _stopping(plan: Any, width: int) -> list[Line]:
    """Where trials are measured and where they may be stopped."""
    scheduler, steps = plan.experiment.scheduler, plan.budget.steps
    out = labelled("eval", f"validation loss at {_places(plan.evaluate_at, steps)}", width)
    early = [rung for rung in plan.rungs if rung < 1]
    places = _places(early, steps) if early else ""
    out += labelled("rungs", registered(scheduler).describe(scheduler, places), width)
    rules = []
    if scheduler.flatline:
        flat = scheduler.flatline
        after = f", after {flat.after:.0%} of the budget" if flat.after else ""
        flat_words = f"{flat.patience} evaluations within {flat.min_delta:.2g} of its best{after}"
        rules.append(f"completed when flat ({flat_words})")
    factor = f" or above {scheduler.diverged.factor:g} times its first" if scheduler.diverged else ""
    rules.append(f"pruned when its loss is not finite{factor}")
    return out + labelled("rules", "; ".join(rules), width)


def _places(shares: Sequence[float], steps: int | None) -> str:
    """Shares of the budget in steps ("step 4, 11, 33 of 100"), or as they are if it is in epochs ("4%, 11%, 33%")."""
    shown = list(shares) if len(shares) <= 12 else [*shares[:9], *shares[-2:]]
    told = [str(round(s * steps)) if steps else words.whole_percent(s) for s in shown]
    if len(shares) > 12:
        told.insert(9, "…")
    return f"step {', '.join(told)} of {steps}" if steps else f"{', '.join(told)} of a trial"


def _memory(need: Mapping[str, int | None] | str, plan: Any) -> str:
    """ "at most 12.3 GB of a GPU for the largest trial (base 1.1 GB, adapters 0.9 GB, …)", or why it is not known."""
    if isinstance(need, str):
        return f"not known: {clean(need)}"
    packed = plan.trials_per_gpu
    told = {name: "not known" if size is None else words.size(size) for name, size in need.items()}
    total = told.pop("total")
    parts = ", ".join(f"{name} {size}" for name, size in told.items())
    who = "the largest trial" if packed in (1, "auto") else f"{packed} of the largest trials"
    gpu = "a GPU" if plan.experiment.resources.processes == 1 else "each GPU"
    return f"at most {total} of {gpu} for {who} ({parts})"


def _code(key: str, own: Any) -> str:
    """Code of the user's own that the search runs, and in which process."""
    named = shown_path(own.file)
    named = own.target if named.startswith(os.sep) else f"{named}:{own.name}"
    if key == "search.space":
        return f"{clean(named)}, a function of yours: in a process of its own"
    return f"{clean(named)}, a program of yours: in every worker"


def _workers(experiment: Any, packed: int | str) -> str:
    run, resources = experiment.run, experiment.resources
    processes, asked = resources.processes, resources.gpus_per_trial
    cpus = f"{resources.cpus_per_trial:g} CPU"
    plural = "s" if processes > 1 else ""
    gpus = f"and, where there are any, {processes} GPU{plural}" if asked is None else f"and {asked:g} GPU{plural}"
    if processes > 1:
        gpus += f", {processes} processes with {resources.strategy}"
    limit = resources.max_concurrent_trials
    most = f"at most {limit} at once" if limit else "as many at once as fit"
    most += f", up to {resources.scale_to} where the cluster grows" if resources.scale_to else ""
    cluster = joins(run.address)
    on = f"the Ray cluster at {cluster}" if cluster else "this machine"
    on = "the Ray cluster that runs on this machine" if cluster == AUTO else on
    on += "" if run.address or not cluster else " (RAY_ADDRESS)"
    number = "as many packed trials as pay" if packed == "auto" else f"{packed} packed trials"
    who = "a trial" if packed == 1 else f"an engine of {number}"
    return f"{who} takes {cpus} {gpus}; {most}; on {on}"


def _space(plan: Any, width: int) -> list[Line]:
    space, recipe = plan.space, plan.recipe
    described = clean(space.description)
    out = labelled("space", f"{space.name}: {described}" if described else space.name, width)
    if not space.parameters and space.describe():  # a Python function: its parameters are known only when it draws
        text = ", ".join(f"{name} {shown(value)}" for name, value in recipe.items())
        return out + labelled("recipe", text, width) if text else out
    if not space.parameters:
        return out + labelled("", "nothing varies: the settings as written, once", width)
    return [*out, *parameter_table(space.describe(), width, recipe=recipe), *_first(plan, width)]


def _first(plan: Any, width: int) -> list[Line]:
    """The trials after the recipe that the space names: "trial 1: learning_rate 1e-3, lora_r 64; ..."."""
    told = []
    for number, point in enumerate(plan.first, 1):
        other = {name: value for name, value in point.items() if plan.recipe.get(name) != value}
        told.append(f"trial {number}: {', '.join(f'{name} {shown(value)}' for name, value in other.items())}")
    return [(), *labelled("first", "; ".join(told), width)] if told else []


def parameter_table(
    rows: Sequence[Mapping[str, str]], width: int, *, recipe: Mapping[str, Any] | None = None
) -> list[Line]:
    """A row for each row of `Space.describe()`: name, range in words, condition, and the recipe's value.

    recipe: values by name; None leaves that column out.
    """
    ranges = [f"{row['range']}, when {row['when']}" if row["when"] else row["range"] for row in rows]
    cells = [shown(recipe[row["name"]]) if recipe and row["name"] in recipe else "-" for row in rows]
    name_width = max(len("parameter"), *(width_of(row["name"]) for row in rows))
    # -2 takes back the gap before a column that is not there
    recipe_width = max(len("recipe"), *(width_of(cell) for cell in cells)) if recipe is not None else -2
    room = max(16, width - name_width - recipe_width - 6)
    range_width = min(max(len("range"), *(width_of(text) for text in ranges)), room)
    head = f"  {'parameter':<{name_width}}  {'range':<{range_width}}" + ("  recipe" if recipe is not None else "")
    out = [crop(line((head, "head")), width)]
    for row, text, cell in zip(rows, ranges, cells, strict=True):
        tail = [("  " + cell, "strong")] if recipe is not None else []
        first, *more = wrap(text, range_width) or [""]
        out.append(crop(line(f"  {row['name']:<{name_width}}  ", pad(first, range_width), *tail), width))
        out += [crop(line(" " * (name_width + 4), part), width) for part in more]
    return out
