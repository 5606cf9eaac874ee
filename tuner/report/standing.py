"""The best trial against the recipe, in one honest sentence."""

from __future__ import annotations

from tuner.contract import Reason, Status
from tuner.report import formatting as words
from tuner.results.records import RECIPE, SearchRecord, TrialRecord


def leader(record: SearchRecord) -> TrialRecord | None:
    """The lowest loss so far among trials that ended usable or are running."""
    contenders = [t for t in record.trials.values() if t.best and (t.is_usable or not t.has_ended)]
    return min(contenders, key=lambda t: t.best_eval_loss or 0.0, default=None)


def so_far(record: SearchRecord) -> str:
    """ "trial 9: 4.312, 11.5% below the recipe's 4.874" while the search runs; "" before the first loss."""
    best = leader(record)
    return against_recipe(record, best) if best else ""


def at_the_end(record: SearchRecord) -> str:
    """The sentence that the search ends with; "" where no trial is usable."""
    best = record.best
    if best is None:
        return ""
    if best.number == RECIPE:
        others = sum(t.is_usable for t in record.trials.values()) > 1
        return f"trial {RECIPE}, the recipe: {words.loss(best.best_eval_loss)}" + (
            "; no trial beat the recipe" if others else ""
        )
    sentence = against_recipe(record, best)
    if best.status is not Status.COMPLETED:
        sentence += f"; stopped at step {place(best)}, no trial ran to its end"
    return sentence


def against_recipe(record: SearchRecord, best: TrialRecord) -> str:
    """A trial's loss and how far it lies below the recipe's."""
    own = words.loss(best.best_eval_loss)
    recipe = record.recipe
    if best.number == RECIPE:
        return f"trial {RECIPE}, the recipe: {own}"
    head = f"trial {best.number}: {own}"
    if recipe is None or recipe.best_eval_loss is None or best.best_eval_loss is None:
        return head + (f"; the recipe {recipe.ending}" if recipe and recipe.has_ended and not recipe.is_usable else "")
    if recipe.has_ended and not recipe.is_usable:
        return f"{head}; the recipe itself {recipe.ending}"
    gain = 1 - best.best_eval_loss / recipe.best_eval_loss if recipe.best_eval_loss else 0.0
    side = f"{words.percent(gain)} below" if gain >= 0 else f"{words.percent(-gain)} above"
    sentence = f"{head}, {side} the recipe's {words.loss(recipe.best_eval_loss)}"
    if not recipe.has_ended:
        return f"{sentence} so far"
    if recipe.reason is Reason.RUNG:  # its number is then an early one: the reader must know that it might have fallen
        sentence += f" (stopped at step {place(recipe)})"
    return sentence


def place(trial: TrialRecord) -> str:
    """ "33/100": where a trial stands in its whole budget."""
    return f"{trial.step}/{trial.max_steps}" if trial.max_steps else str(trial.step)
