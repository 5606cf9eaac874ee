"""Writes what a search is expected to take, as text for `plan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuner.report import formatting as words
from tuner.report.lines import Line, clean, labelled


def outlook_lines(outlook: Any, plan: Any, width: int) -> list[Line]:
    """The lines on a `tuner.driver.outlook.Outlook` of a `tuner.driver.plan.Plan`."""
    out = labelled("takes", _work(outlook, plan.experiment.search.num_trials), width)
    out += labelled("time", _time(outlook), width)
    if outlook.gpu_hours is not None:
        out += labelled("GPUs", _gpus(outlook, plan.experiment.run.price_per_gpu_hour), width)
    if (budget := _budget(plan.experiment.search.budget)) is not None:
        out += labelled("budget", budget, width)
    return out


def _work(outlook: Any, trials: int) -> str:
    """ "about 114.1k tokens (85.2k to 140.0k), 34% of what 16 whole trials take"."""
    share = f"{words.whole_percent(outlook.of_all)} of what {words.plural(trials, 'whole trial')} take"
    if outlook.of_all > 0.999:
        share = words.plural(trials, "whole trial")
        return share if outlook.tokens is None else f"{_about(outlook.tokens, words.count)} tokens, {share}"
    if outlook.tokens is None:
        return f"about {share}"
    return f"{_about(outlook.tokens, words.count)} tokens, {share}"


def _time(outlook: Any) -> str:
    """ "about 64 s on the clock (50 to 80 s), 17 s of them to the first step; 2 trials at a time, by a probe just
    now"."""
    if outlook.wall_s is None:
        return "not known on this machine: --probe measures it, with 20 steps of a few trials"
    start = f", {words.duration(outlook.start_s)} of them to the first step"
    at_once = words.plural(outlook.at_once, "trial")
    return f"{_about(outlook.wall_s, words.duration)}{start}; {at_once} at a time, by {clean(outlook.measured)}"


def _gpus(outlook: Any, price: float | None) -> str:
    """ "about 1.6 GPU-hours (1.3 to 1.9), which cost about 3.20 (2.60 to 3.80) at 2 each"."""
    told = f"{_about(outlook.gpu_hours, lambda hours: words.hours(3600 * hours))} GPU-hours"
    if outlook.price is None:
        return told
    return f"{told}, which cost {_about(outlook.price, words.money)} at {price:g} each"


def _about(expected: Any, say: Callable[[float], str]) -> str:
    least, likely, most = say(expected.least), say(expected.likely), say(expected.most)
    return f"about {likely} ({least} to {most})" if least != most else f"about {likely}"


def _budget(budget: Any) -> str | None:
    """ "the search ends at 20.0M tokens, at 2h on the clock, or when the last 10 trials gain less than 0.5%"."""
    ends = [f"at {words.count(budget.tokens)} tokens"] if budget.tokens is not None else []
    ends += [f"at {budget.gpu_hours:g} GPU-hours"] if budget.gpu_hours is not None else []
    ends += [f"at a price of {budget.money:g}"] if budget.money is not None else []
    ends += [f"at {budget.wall_time} on the clock"] if budget.wall_time is not None else []
    if (until := budget.until) is not None:
        last = words.plural(until.next, "trial") if isinstance(until.next, int) else until.next
        ends.append(f"when the last {last} gain less than {until.gain_below * 100:g}%")
    return f"the search ends {words.listing(ends, 'or')}" if ends else None
