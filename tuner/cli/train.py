"""`tuner train`: trains one point, as a search of one: the winner of a run, or the recipe of a search file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, accept_option, experiment_options, json_option

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.driver.training import Changes
    from tuner.importing import Permission


@click.command("train", cls=Command, short_help="Train once: the winner of a run, or a recipe.")
@experiment_options(one_run=True)
@click.option("--trial", type=int, metavar="N", help="Another trial of RUN than the winner.")
@click.option("--epochs", type=float, metavar="N", help="The length in passes over the rows.")
@click.option("--seeds", type=int, default=1, metavar="N", help="Train N times, with a seed each.")
@click.option("--from-adapter", is_flag=True, help="Go on from the trial's adapter.")
@accept_option
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@click.option("--verbose", is_flag=True, help="Lines instead of the live view, one for every event.")
@json_option
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    trial: int | None,
    epochs: float | None,
    seeds: int,
    from_adapter: bool,
    accept_changes: bool,
    plain: bool,
    verbose: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Trains once with fixed hyperparameters: a search of one point that nothing stops early.

    RUN is the name or the folder of a search, whose winner is trained again: at its full length or at --epochs, on its
    rows or on --data. FILE is a search file, whose recipe is trained; so is the default one of --model and --data. The
    shape of the learning rate's schedule stays, and it is laid over the new length.
    """
    from tuner.cli.options import settings_given
    from tuner.cli.output import view
    from tuner.cli.search import conclude, conclude_without_return
    from tuner.driver.training import Changes

    changes = Changes(overrides, settings_given(values), epochs, seeds)
    experiment = to_train(file, changes, values, trial=trial, from_adapter=from_adapter)
    from tuner.driver.session import run_search

    with view({}, "all" if verbose else "bounded" if plain else None) as listener:
        conclude_now = partial(conclude_without_return, listener, as_json)
        outcome = run_search(experiment, [listener], conclude_now, accept_changes=accept_changes)
    return conclude(outcome, as_json)


def to_train(
    given: Path | None,
    changes: Changes,
    values: dict[str, Any],
    *,
    trial: int | None = None,
    from_adapter: bool = False,
) -> Experiment:
    """The experiment of a command line. given: FILE or RUN. values: of the flags, as click has them. Raises
    InputError."""
    from tuner.cli.options import permitted, storage
    from tuner.config.flags import OWN_WORK
    from tuner.contract import InputError
    from tuner.driver.training import free_name, of_run
    from tuner.results.folder import names_of_runs, open_run

    flags = dict(changes.flags)
    if given is None or given.is_file() or _is_path(given):
        for flag, asked in (("--trial", trial is not None), ("--from-adapter", from_adapter)):
            if asked:
                raise InputError("is about a trial of a run", where=flag, expected="RUN, a search that has run")
        if given is None and not OWN_WORK & flags.keys():
            raise InputError("nothing to train is given", where="FILE|RUN",
                             expected="a run, a search file, or --model and --data")  # fmt: skip
        return _recipe(given, changes, permitted(values, runs=True))
    folder = open_run(storage(flags.get("run.storage_path", "runs")), str(given))
    flags = {"run.storage_path": str(folder.path.parent), **flags}
    name = free_name(folder, names_of_runs(storage(flags["run.storage_path"])))
    changes = replace(changes, flags={"run.name": name, **flags})
    return of_run(folder, trial, changes, permitted(values, runs=False), from_adapter=from_adapter)


def _is_path(given: Path) -> bool:
    """Whether this can only be meant as a search file: no run has such a name, and no run is there."""
    from tuner.config.paths import is_pathlike

    named = is_pathlike(str(given)) or len(given.parts) > 1
    return named and not (given / "trials.jsonl").is_file()


def _recipe(file: Path | None, changes: Changes, permission: Permission) -> Experiment:
    """The experiment of FILE, or of flags alone, with nothing to search."""
    from tuner.cli.options import load
    from tuner.driver.training import changed, one_point, without_space

    flags = {**changes.flags, **one_point(changes.seeds)}
    notes: list[str] = []
    experiment = load(file, changes.overrides, flags, permission=permission)
    if changes.epochs is not None:
        own, notes = changed(experiment, changes.epochs)
        experiment = load(file, (*changes.overrides, *own), flags, permission=permission)
    return replace(without_space(experiment), notes=(*notes, *experiment.notes))
