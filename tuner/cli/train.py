"""`tuner train`: trains once with fixed hyperparameters, as a search of one trial."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, accept_option, experiment_options, json_option

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.importing import Permission


@click.command("train", cls=Command, short_help="Train once with fixed hyperparameters.")
@experiment_options(one_run=True)
@accept_option
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@click.option("--verbose", is_flag=True, help="Lines instead of the live view, one for every event.")
@json_option
def command(
    file: Path,
    overrides: tuple[str, ...],
    accept_changes: bool,
    plain: bool,
    verbose: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Trains once with the hyperparameters of FILE: a search of one trial that nothing stops early.

    FILE is an experiment file; `best/train.yaml` of a run trains its winner again.
    """
    from tuner.cli.options import permitted, settings_given
    from tuner.cli.output import view
    from tuner.cli.search import conclude, conclude_without_return

    experiment = one_trial(file, overrides, settings_given(values), permitted(values, runs=True))
    from tuner.driver.session import run_search

    with view({}, "all" if verbose else "bounded" if plain else None) as listener:
        conclude_now = partial(conclude_without_return, listener, as_json)
        outcome = run_search(experiment, [listener], conclude_now, accept_changes=accept_changes)
    return conclude(outcome, as_json)


def one_trial(
    file: Path, overrides: tuple[str, ...], flags: dict[str, Any], permission: Permission | None = None
) -> Experiment:
    """The experiment of FILE with one trial and nothing to search. The settings of its space (a quantization) stay."""
    from tuner.cli.options import load, permitted

    permission = permission or permitted({}, runs=True)
    settings = (load(file, overrides, flags, permission=permission).space.data or {}).get("settings")
    space: dict[str, Any] = {"parameters": {}, **({"settings": settings} if settings else {})}
    fixed = {"search.space": space, "search.num_trials": 1, "search.sampler": "tpe", "scheduler.kind": "none"}
    return load(file, overrides, {**flags, **fixed}, permission=permission)
