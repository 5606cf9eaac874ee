"""Compares the best trial with the recipe, in one sentence; trials of one point, by what their seeds differ."""

from __future__ import annotations

import statistics

from tuner.contract import InputError, Objective, Reason, Status
from tuner.report import formatting as words
from tuner.results.records import RECIPE, SearchRecord, TrialRecord


def leader(record: SearchRecord) -> TrialRecord | None:
    """The trial with the best value so far, among those that can win yet: completed ones and those without an ending;
    where none of these has a value, the best of those that were stopped early."""
    ended = record.best
    complete = ended is not None and ended.status is Status.COMPLETED
    contenders = [*([ended] if ended and complete else []), *record.unended]
    return record.objective.best(contenders, lambda trial: trial.best_value) or ended


def asked_for(record: SearchRecord, number: int | None, name: str) -> TrialRecord:
    """The trial of this number; None: the leader. name: the run's. Raises InputError where there is none."""
    trial = leader(record) if number is None else record.trials.get(number)
    if trial is not None:
        return trial
    if number is None:
        raise InputError(
            f"no trial of {name} has a {record.objective.title} that can be compared",
            where="NUMBER",
            expected="the number of a trial" if record.trials else "a search that has begun a trial",
        )
    last = max(record.trials, default=None)
    raise InputError(
        f"there is no trial {number} in {name}",
        where="NUMBER",
        expected=f"0 to {last}" if last is not None else "a search that has begun a trial",
    )


def is_one_point(record: SearchRecord) -> bool:
    """Whether nothing is searched: no trial has parameters, and several differ by their seeds alone."""
    return bool(record.trials) and not any(trial.params for trial in record.trials.values())


def so_far(record: SearchRecord) -> str:
    """ "trial 9: 4.312, 11.5% below the recipe's 4.874" while the search runs; "" before the first value."""
    best = leader(record)
    return against_recipe(record, best) if best else ""


def at_the_end(record: SearchRecord) -> str:
    """The sentence at the end of a search; "" if no trial is usable."""
    best = record.best
    if best is None:
        return ""
    if is_one_point(record) and len(record.trials) > 1:
        return f"trial {best.number}: {words.measured(best.best_value)}{_over_seeds(record)}"
    if best.number == RECIPE:
        others = sum(t.is_usable for t in record.trials.values()) > 1
        sentence = f"trial {RECIPE}, the recipe: {words.measured(best.best_value)}{_before_second(record, best)}"
        return sentence + ("; no trial beat the recipe" if others else "")
    sentence = against_recipe(record, best, _before_second(record, best))
    if best.status is not Status.COMPLETED:
        sentence += f"; stopped at step {place(best)}, no trial ran to its end"
    return sentence


def _over_seeds(record: SearchRecord) -> str:
    """ "; 3 seeds: mean 4.281, standard deviation 0.021 (0.5%)": of the completed trials; "" for fewer than two."""
    values = [t.best_value for t in record.ranked if t.status is Status.COMPLETED and t.best_value is not None]
    if len(values) < 2:
        return ""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    share = f" ({words.percent(deviation / abs(mean))})" if mean else ""
    told = f"mean {words.measured(mean)}, standard deviation {words.measured(deviation)}{share}"
    return f"; {len(values)} seeds: {told}"


def _before_second(record: SearchRecord, best: TrialRecord) -> str:
    """ ", 0.6% below trial 3's 4.340": the gap to the second; "" if that is the recipe, which is named already."""
    second = next((t for t in record.ranked if t is not best), None)
    if second is None or second.number == RECIPE or best.best_value is None or second.best_value is None:
        return ""
    if second.status is not best.status or second.best_value == best.best_value:
        return ""  # one that was stopped early was not measured at the same place
    side = gap(record.objective, best.best_value, second.best_value)
    return f", {side} trial {second.number}'s {words.measured(second.best_value)}"


def against_recipe(record: SearchRecord, best: TrialRecord, second: str = "") -> str:
    """A trial's best value, and how far it is below or above the recipe's. second: what is said after that."""
    own = words.measured(best.best_value)
    recipe = record.recipe
    if is_one_point(record) and len(record.trials) > 1:
        return f"trial {best.number}: {own}"
    if best.number == RECIPE:
        return f"trial {RECIPE}, the recipe: {own}"
    head = f"trial {best.number}: {own}"
    if recipe is None or recipe.best_value is None or best.best_value is None:
        return (
            head
            + second
            + (f"; the recipe {recipe.ending}" if recipe and recipe.has_ended and not recipe.is_usable else "")
        )
    if recipe.has_ended and not recipe.is_usable:
        return f"{head}{second}; the recipe itself {recipe.ending}"
    sentence = f"{head}, {gap(record.objective, best.best_value, recipe.best_value)} the recipe's "
    sentence += words.measured(recipe.best_value)
    if not recipe.has_ended:
        return f"{sentence} so far"
    if recipe.reason is Reason.RUNG:  # it was measured early, and might have got better
        sentence += f" (stopped at step {place(recipe)})"
    return sentence + second


def gap(objective: Objective, value: float, recipe: float) -> str:
    """ "11.5% below": a value compared with the recipe's. An equal value counts as on the better side."""
    side = "below" if value < recipe or (value == recipe and objective.falls) else "above"
    gain = objective.gain(value, recipe)
    if gain is None:  # the recipe's value is 0: there is no relative difference
        return side if value != recipe else "like"
    return f"{words.percent(abs(gain))} {side}"


def place(trial: TrialRecord) -> str:
    """ "33/100": a trial's last step and the steps of its budget."""
    return f"{trial.step}/{trial.max_steps}" if trial.max_steps else str(trial.step)
