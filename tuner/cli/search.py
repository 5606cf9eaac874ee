"""`tuner search`: runs a search, or resumes one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, accept_option, experiment_options, json_option

if TYPE_CHECKING:
    from tuner.cli.output import Lines
    from tuner.driver.session import Outcome
    from tuner.importing import Permission
    from tuner.report.machine import EventLines

_WITH_RESUME = ("search.num_trials", "search.budget", "run.storage_path", "run.address")
"""Settings that may be given beside --resume."""


@click.command("search", cls=Command, short_help="Search for good hyperparameters.")
@experiment_options()
@click.option("--resume", metavar="NAME", help="Go on with a run; --num-trials and --budget may give it more.")
@click.option("--or-resume", is_flag=True, help="Go on with the run of this --name if it is there.")
@accept_option
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@click.option("--verbose", is_flag=True, help="Lines instead of the live view, one for every event.")
@click.option("--events", is_flag=True, help="Every event of the ledger as a line of JSON on standard output.")
@click.option("--events-beside-log", is_flag=True, hidden=True, help="The same beside the log of the Ray job.")
@json_option
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    resume: str | None,
    or_resume: bool,
    accept_changes: bool,
    plain: bool,
    verbose: bool,
    events: bool,
    events_beside_log: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Searches for good hyperparameters: many short fine-tunings, the best of them kept.

    FILE is an experiment file (YAML); without FILE, --model and --data, the embedded example runs. The course is told
    on standard error. Exit codes: 0 done, 1 no usable trial, 2 wrong input, 3 done with failed trials.
    """
    lines: Lines = "all" if verbose else "bounded" if plain else None
    written = event_lines(events, events_beside_log)
    if resume is not None:
        return _resume(resume, file, overrides, accept_changes, lines, written, as_json, values)
    from tuner.cli.options import load, permitted, settings_given
    from tuner.cli.output import labels_of_program, view
    from tuner.importing import add_folders
    from tuner.results.folder import was_begun

    permission = permitted(values, runs=True)
    experiment = load(file, overrides, settings_given(values), permission=permission)
    if or_resume and experiment.run.name and was_begun(experiment.storage_path, experiment.run.name):
        run = experiment.run
        named = replace(permission, modules=(*permission.modules, *(own.module for own in experiment.code.values())))
        add_folders(str(own.folder) for own in experiment.code.values())
        return _go_on(
            experiment.storage_path,
            run.name or "",
            None,
            None,
            run.address,
            accept_changes,
            lines,
            written,
            as_json,
            named,
        )
    from tuner.driver.session import run_search  # before the view, which hides the cursor and must show it again

    with view(labels_of_program(experiment.run.program), lines) as listener:
        outcome = run_search(
            experiment, [listener, *written], partial(conclude_without_return, listener, as_json),
            accept_changes=accept_changes,
        )  # fmt: skip
    return conclude(outcome, as_json)


def event_lines(on_output: bool, beside_log: bool) -> list[EventLines]:
    """The listeners for --events and --events-beside-log, if they are wanted. The first keeps today's standard output:
    Ray's session redirects that later to a file."""
    import sys

    from tuner.report.machine import EventLines

    return [
        *([EventLines(sys.stdout)] if on_output else []),
        *([EventLines(_beside_log())] if beside_log else []),
    ]


def _beside_log() -> IO[str]:
    """The file for the events beside the log of the Ray job that this process is."""
    from tuner.cluster.job_log import events_of_this_job
    from tuner.contract import InputError

    place = events_of_this_job()
    try:
        return place.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write among Ray's logs ({error.strerror or error})", where=str(place)) from error


def _resume(
    name: str,
    file: Path | None,
    overrides: tuple[str, ...],
    accept_changes: bool,
    plain: Lines,
    written: list[EventLines],
    as_json: bool,
    values: dict[str, Any],
) -> int:
    from tuner.cli.options import permitted, require_resume_alone, settings_given, storage

    given = settings_given(values)
    require_resume_alone(
        name, file, overrides, given, _WITH_RESUME,
        "--num-trials, --budget, --address, --storage-path, --allow-module and --accept-changes",
        "start a new search under another --name",
    )  # fmt: skip
    return _go_on(
        storage(given.get("run.storage_path", "runs")),
        name,
        given.get("search.num_trials"),
        given.get("search.budget"),
        given.get("run.address"),
        accept_changes,
        plain,
        written,
        as_json,
        permitted(values, runs=False),
    )


def _go_on(
    storage: Path,
    name: str,
    num_trials: int | None,
    budget: Mapping[str, Any] | None,
    address: str | None,
    accept_changes: bool,
    plain: Lines,
    written: list[EventLines],
    as_json: bool,
    permission: Permission,
) -> int:
    from tuner.cli.output import labels_of_run, view
    from tuner.results.folder import open_run
    from tuner.results.ledger import read_ledger

    folder = open_run(storage, name)
    from tuner.driver.session import resume_search

    record = folder.record()
    done = (record.is_done and num_trials in (None, record.num_trials)) or bool(record.spent and budget is None)
    shown = view(labels_of_run(folder), plain or ("bounded" if done else None), record)
    with nullcontext(shown) if done else shown as listener:  # nothing will be shown, unless `best/` is damaged
        for line in written:  # their reader has not seen the earlier sessions
            for event in read_ledger(folder.ledger):
                line(event)
        outcome = resume_search(
            storage, name, [listener, *written], num_trials=num_trials, budget=budget, address=address,
            permission=permission, show_outcome=partial(conclude_without_return, listener, as_json),
            accept_changes=accept_changes,
        )  # fmt: skip
    return conclude(outcome, as_json)


def conclude_without_return(listener: Any, as_json: bool, outcome: Outcome) -> int:
    """`conclude` in another thread, after a signal, when the main thread does not return from `run_search`."""
    listener.__exit__(None, None, None)
    return conclude(outcome, as_json)


def conclude(outcome: Outcome, as_json: bool) -> int:
    """Writes the summary of a search that has ended, with --json its JSON object, and returns its exit code."""
    import sys

    from tuner.cli.output import answer_json, labels_of_run, place_of, tell, width
    from tuner.report.machine import search_json
    from tuner.report.summary import said_of_nothing_left, summary
    from tuner.results.folder import RunFolder
    from tuner.streams import settle

    labels = labels_of_run(RunFolder(outcome.path))
    if outcome.nothing_left:
        click.echo(said_of_nothing_left(outcome.path.name, outcome.record), err=True)
    tell(summary(outcome.record, place_of(outcome.path), width(sys.stderr), labels=labels))
    if outcome.trouble:
        click.echo(f"error: {outcome.trouble}", err=True)
    if as_json:
        settle()
        answer_json(search_json(outcome.record, outcome.path))
    return outcome.exit_code
