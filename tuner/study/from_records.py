"""An Optuna study in memory of some trials of a ledger, for Optuna's own plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tuner.results.records import SearchRecord, TrialRecord
from tuner.space.parameters import label
from tuner.study.importance import read_distribution

if TYPE_CHECKING:
    import optuna


def study_of(
    record: SearchRecord,
    trials: Iterable[TrialRecord],
    written: Callable[[Any], str] = str,
    headings: Mapping[str, str] | None = None,
) -> optuna.Study:
    """A study in which the trials are complete with their best values, numbered from 0.

    written: how texts are written that are drawn: plotly takes some for markup. headings: the parameters that it has,
    with their names in it; None for all of them, under their own names.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=record.objective.direction)
    for trial in trials:
        params: dict[str, Any] = {}
        distributions: dict[str, Any] = {}
        for name, value in trial.params.items():
            drawn = read_distribution(trial.distributions.get(name, ""))
            heading = written(name) if headings is None else headings.get(name)
            if drawn is None or heading is None:
                continue
            if isinstance(drawn, CategoricalDistribution):
                drawn = CategoricalDistribution([_shown(choice, written) for choice in drawn.choices])
            params[heading], distributions[heading] = value, drawn
        try:
            stored = {name: _shown(label(value), written) for name, value in params.items()}
            study.add_trial(create_trial(params=stored, distributions=distributions, value=trial.best_value))
        except (ValueError, TypeError, ArithmeticError):
            study.add_trial(create_trial(value=trial.best_value))  # a value outside of its distribution
    return study


def _shown(choice: Any, written: Callable[[Any], str]) -> Any:
    return written(choice) if isinstance(choice, str) else choice
