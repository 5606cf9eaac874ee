"""What a resume may change of a search: how many trials it has, and what it may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuner.config import Experiment, SearchBudget
from tuner.contract import InputError
from tuner.results.budget import merged
from tuner.results.records import SearchRecord


def with_more(
    experiment: Experiment, record: SearchRecord, num_trials: int | None, budget: Mapping[str, Any] | None
) -> Experiment:
    """The experiment with `num_trials` trials and the amounts of `budget`; None for what the ledger has, to which
    trials may have been added. Raises InputError where the search has more trials, and for an amount that is none."""
    have = len(record.trials) + len(record.additions)
    if num_trials is not None and num_trials < have:
        raise InputError(
            f"the search already has {have} trials",
            where="--num-trials",
            expected=f"{have} or more",
        )
    known = merged(SearchBudget(), record.budget, "the ledger") if record.sessions else experiment.search.budget
    changed = merged(known, budget or {}, "--budget")
    if changed.money is not None and experiment.run.price_per_gpu_hour is None:
        raise InputError(
            "the search was started without run.price_per_gpu_hour, so its money cannot be counted",
            where="--budget money",
            expected="gpu_hours, tokens, wall_time or until",
        )
    update = {"num_trials": num_trials or record.num_trials or experiment.search.num_trials, "budget": changed}
    return replace(experiment, search=experiment.search.model_copy(update=update))
