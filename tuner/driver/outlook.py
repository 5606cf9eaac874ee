"""What a search will take, foreseen before it starts: tokens, time, GPU-hours, price, and whether its budget will do.

The work comes from the ladder (`scheduling.forecast`). Tokens need the rows, which `plan` looks at, or measured trials;
times need measured trials: of a probe, or of the last search with the same settings in the same folder of runs.
"""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuner.config import amounts, dump_resolved
from tuner.contract import InputError, Look
from tuner.driver.corners import Corner, too_large
from tuner.driver.plan import Plan
from tuner.results.budget import words
from tuner.results.folder import RunFolder, names_of_runs
from tuner.results.rates import Rates, rates_of
from tuner.results.untrusted_read import read_object
from tuner.scheduling.forecast import Forecast, Pace, Range
from tuner.space import FunctionSpace

DRAWS = 64
"""Points of the space that are drawn to find what trials cost on average."""
SAME = 0.5
"""The share of a step's time that does not depend on its tokens: on the embedded base a batch of 8 takes twice as long
as one of 2, and a small batch on a GPU takes as long as one of half the size."""
MOST_RUNS = 50
"""Earlier runs whose settings are compared, the last ones."""
MOST_CORNERS = 4
"""Ends of the space that a note names."""
SECTIONS = ("search", "scheduler", "run", "about")
"""Sections of the settings that do not change what a step takes."""


@dataclass(frozen=True)
class Outlook:
    """What a search is expected to take. None: not known."""

    work: Range
    """In whole trials of the recipe's length."""
    of_all: float
    """The same as a share of all trials run to their end."""
    tokens: Range | None = None
    """Training tokens."""
    whole_tokens: float | None = None
    """Training tokens of the recipe."""
    wall_s: Range | None = None
    """Seconds on the clock, once Ray runs."""
    start_s: float | None = None
    """Of these, seconds to the first step: rows, imports, the base."""
    gpu_hours: Range | None = None
    """Hours that it holds GPUs; None also without GPUs."""
    price: Range | None = None
    """What these cost."""
    measured: str = ""
    """Where the times come from, in words; "" where they are not known."""
    at_once: int | None = None
    """Trials at a time."""
    too_large: tuple[Corner, ...] = ()
    """The ends of the space that do not fit on a GPU of this machine."""
    notes: tuple[str, ...] = ()
    """What is to be said of the budget, and of these ends."""

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


def outlook(plan: Plan, look: Look | None, rates: Rates | None, capacity: int | None = None) -> Outlook:
    """What the search is expected to take. look: at its rows. rates: of trials that were measured on this machine.
    capacity: bytes of the GPU of this machine that has least; None without one."""
    tokens = _tokens(plan, look, rates)
    at_once = rates.at_once if rates else None
    costs = [one / tokens[0] for one in tokens] if tokens and tokens[0] else [1.0]
    ladder = plan.ladder(_epoch(look))
    seen = plan.foresee(ladder, at_once or 1, _pace(plan, rates, look), costs)
    found = Outlook(
        work=seen.work,
        of_all=seen.of_all,
        tokens=seen.work.times(tokens[0]) if tokens else None,
        whole_tokens=tokens[0] if tokens else None,
        at_once=at_once,
    )
    if rates is not None:
        found = _with_times(found, plan, rates, _timed(plan, ladder, rates, costs, look))
    corners = tuple(too_large(plan, capacity)) if capacity else ()
    notes = [*_budget_notes(found, plan), *_corner_notes(corners, capacity or 0)]
    return replace(found, too_large=corners, notes=tuple(notes))


def earlier_rates(plan: Plan) -> Rates | None:
    """The rates of the last search on this machine whose trials were made of the same and ran beside as many others;
    None where there is none."""
    storage = plan.experiment.storage_path
    mine = _compared(dump_resolved(plan.experiment))
    folders = [RunFolder(storage / name) for name in names_of_runs(storage)]
    folders.sort(key=lambda folder: _changed(folder.ledger), reverse=True)
    for folder in folders[:MOST_RUNS]:
        with suppress(InputError, OSError):
            if _compared(read_object(folder.resolved)) != mine:
                continue
            record = folder.record()
            nodes = {t.setup.get("node") for t in record.trials.values() if t.setup}
            if record.finished and nodes == {platform.node()}:
                found = rates_of(record, f"the search {folder.name} in this folder")
                if found is not None:
                    return found
    return None


def _compared(resolved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resolved.items() if name not in SECTIONS}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _rows(look: Look | None) -> tuple[int, float] | None:
    """Training rows, and their tokens; None where they are not known."""
    if look is None or not look.sets or not look.sets[0].looked:
        return None
    first = look.sets[0]
    return first.rows, min(first.tokens / first.looked, float(look.limit)) * first.rows


def _epoch(look: Look | None) -> int | None:
    known = _rows(look)
    return round(known[1]) if known else None


def _tokens(plan: Plan, look: Look | None, rates: Rates | None) -> list[float]:
    """Training tokens of whole trials, the recipe's first; empty where they are not known."""
    sizes = [size for params in _points(plan) if (size := _size(plan, params, look)) is not None]
    if not sizes:
        return [one for one in rates.tokens if one > 0] if rates else []
    found = [size[1] for size in sizes]
    if rates is not None and rates.tokens[0] and found[0]:  # what was counted, not what is expected of the mean row
        found = [one * rates.tokens[0] / found[0] for one in found]
    return found


def _size(plan: Plan, params: Mapping[str, Any], look: Look | None) -> tuple[int, float] | None:
    known = _rows(look)
    if known is None:
        return None
    with suppress(ValueError, InputError):  # a point that the settings refuse
        size = plan.program.trial_size(plan.experiment.settings, params, *known)
        return (size.steps, size.tokens) if size else None
    return None


def whole_steps(plan: Plan, look: Look | None) -> int | None:
    """Steps of a whole trial of the recipe; None where that is not known."""
    size = _size(plan, {}, look)
    return plan.budget.steps or (size[0] if size else None)


def _points(plan: Plan) -> list[dict[str, Any]]:
    """The recipe, and points drawn from the space; the recipe alone where code of the user's own draws them."""
    recipe = dict(plan.recipe)
    if isinstance(plan.space, FunctionSpace):
        return [recipe]
    draws = _Draws(random.Random(0))  # noqa: S311  a fixed sample is the point
    return [recipe, *(plan.space.suggest(draws) for _ in range(DRAWS))]  # type: ignore[arg-type]


class _Draws:
    """Stands in for an Optuna trial, which `plan` need not import Optuna for: draws at random."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False, **_: Any) -> float:
        if log:
            return math.exp(self._chance.uniform(math.log(low), math.log(high)))
        return self._chance.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False, **_: Any) -> int:
        return min(high, max(low, round(self.suggest_float(name, low, high, log=log))))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._chance.choice(list(choices))


def _pace(plan: Plan, rates: Rates | None, look: Look | None) -> Pace:
    """What a trial of cost 1 takes; with a trial as the unit where that is not known."""
    if rates is None:
        return Pace()
    return Pace(rates.begin_s, rates.step_s * (whole_steps(plan, look) or rates.steps), rates.evaluation_s)


def _timed(plan: Plan, ladder: Any, rates: Rates, costs: Sequence[float], look: Look | None) -> Forecast:
    """The forecast with times in the place of tokens: half of a step's time does not follow its tokens."""
    steps = whole_steps(plan, look) or rates.steps
    measured = rates.step_tokens * steps / rates.tokens[0] if rates.tokens[0] else 1.0
    times = [SAME + (1 - SAME) * cost / measured for cost in costs]
    return plan.foresee(ladder, rates.at_once, _pace(plan, rates, look), times)


def _with_times(found: Outlook, plan: Plan, rates: Rates, seen: Forecast) -> Outlook:
    around = rates.start_s + rates.end_s
    seconds = seen.seconds
    wall = Range(around + seconds.least, around + seconds.likely, around + seconds.most)
    gpu_hours = wall.times(rates.gpus / 3600) if rates.gpus else None
    price = plan.experiment.run.price_per_gpu_hour
    return replace(
        found,
        wall_s=wall,
        start_s=rates.start_s,
        gpu_hours=gpu_hours,
        price=gpu_hours.times(price) if gpu_hours and price is not None else None,
        measured=rates.source,
    )


def _budget_notes(found: Outlook, plan: Plan) -> list[str]:
    """A note for each budget that ends the search early, with what would do."""
    budget, trials = plan.experiment.search.budget, plan.experiment.search.num_trials
    wall = amounts.seconds(budget.wall_time) if budget.wall_time else None
    told = []
    for key, given, shown, needs, show in (
        ("tokens", budget.tokens, words(budget.tokens or 0), found.tokens, words),
        ("wall_time", wall, budget.wall_time, found.wall_s, _clock),
        ("gpu_hours", budget.gpu_hours, f"{budget.gpu_hours or 0:g}", found.gpu_hours, _plain),
        ("money", budget.money, f"{budget.money or 0:g}", found.price, _plain),
    ):
        if given is None or needs is None or given >= needs.likely:
            continue
        told.append(
            f"search.budget.{key}: {shown} will end the search after about {_reached(given / needs.likely, trials)}; "
            f"about {show(needs.most)} would do for all {trials}"
        )
    if budget.tokens is not None and found.whole_tokens and budget.tokens < found.whole_tokens:
        told.append(
            f"search.budget.tokens: {words(budget.tokens)} are fewer than the {words(found.whole_tokens)} of the "
            "recipe's trial: no trial will run to its end"
        )
    until = budget.until
    if until is not None and isinstance(until.next, int) and until.next >= trials:
        told.append(f"search.budget.until: {until.next} trials without gain are never reached by a search of {trials}")
    return told


def _corner_notes(corners: Sequence[Corner], capacity: int) -> list[str]:
    """What becomes of trials at ends of the space that do not fit."""
    if not corners:
        return []
    told = ", ".join(corner.text for corner in corners[:MOST_CORNERS])
    told += f" and {len(corners) - MOST_CORNERS} more" if len(corners) > MOST_CORNERS else ""
    return [
        f"too large for a GPU of {capacity / 1e9:.1f} GB here: {told}; such a trial goes on with fewer rows in a pass, "
        "and ends as out of memory where one does not fit"
    ]


def _reached(share: float, trials: int) -> str:
    count = max(1, round(share * trials))
    return f"{count} of {trials} trials"


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.2g}h" if seconds >= 5400 else f"{math.ceil(seconds / 60)}min"


def _plain(amount: float) -> str:
    return f"{amount:.2g}"
