"""`tuner submit`: runs a search on a cluster, from this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.manifest import manifest_options
from tuner.cli.options import Command, accept_option, experiment_options, json_option
from tuner.signals import signals_raised

if TYPE_CHECKING:
    from tuner.cluster.jobs import Cluster, Job
    from tuner.cluster.parcel import Parcel
    from tuner.cluster.payload import Payload
    from tuner.importing import Permission
    from tuner.results.records import SearchRecord

    Order = tuple[str, Parcel, Callable[[int], Payload]]
    """The search's name, what is sent, and what makes its job: it takes the number of this job among those of the
    search, from 1."""

_WITH_RESUME = ("search.num_trials", "run.storage_path")
"""Settings that may be given beside --resume."""
_LAST_LINES = 30
"""Lines that are shown of the log of a job that ended without a result."""


@click.command("submit", cls=Command, prints=True, short_help="Run a search on a cluster, from here.")
@experiment_options()
@click.option("--resume", metavar="NAME", help="Go on with a search on the cluster.")
@accept_option
@click.option(
    "--include", multiple=True, type=click.Path(path_type=Path), metavar="PATH", help="Send a file or folder along."
)
@click.option("--detach", is_flag=True, help="Submit, and do not follow.")
@click.option("--dry-run", is_flag=True, help="Print the exact job; send nothing.")
@manifest_options
@click.option("--plain", is_flag=True, help="The job's log instead of the live view.")
@json_option
@signals_raised()
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    resume: str | None,
    accept_changes: bool,
    include: tuple[Path, ...],
    detach: bool,
    dry_run: bool,
    plain: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Submits the search that `search` would run with the same FILE and options to a cluster, and follows it.

    --address (or RAY_API_SERVER_ADDRESS) is where the cluster's Ray dashboard answers: http://head:8265. Its token
    comes from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. Relative paths are files of this machine and
    travel with the job; absolute ones are the cluster's. Ctrl-C detaches: the search goes on.
    """
    import os

    from tuner.cli.options import permitted, settings_given
    from tuner.cli.output import answer_json
    from tuner.contract import InputError
    from tuner.streams import show_output

    if accept_changes and resume is None:
        raise InputError("is about a search that is gone on with", where="--accept-changes",
                         expected="--resume NAME beside it")  # fmt: skip
    if values["kuberay"] or values["slurm"]:
        from tuner.cli.manifest import write_manifest

        click.echo(write_manifest(file, overrides, include, resume, values), nl=False)
        return 0
    flags, permission = settings_given(values), permitted(values, runs=False)
    address = flags.pop("run.address", None) or os.environ.get("RAY_API_SERVER_ADDRESS") or ""
    cluster = None if dry_run else _cluster(address)
    if resume is not None:
        order = _resumed(resume, file, overrides, include, flags, cluster, values["allow_module"], accept_changes)
    else:
        order = _fresh(file, overrides, include, flags, permission)
    name, parcel, make = order
    if cluster is None:
        answer_json(_dry_run(make(1), parcel))
        return 0
    jobs = cluster.jobs(name)
    _require_free(name, jobs, cluster)
    payload = make(len(jobs) + 1)
    show_output()  # from here on an output without a reader no longer ends the command: a job is submitted
    _tell_parcel(parcel)
    try:
        cluster.submit(payload, parcel)
    except KeyboardInterrupt:
        click.echo(f"interrupted; whether it was submitted says: {_status_line(name, cluster)}", err=True)
        raise
    click.echo(f"submitted {name} to {cluster.address} as the job {payload.submission_id}", err=True)
    if detach:
        click.echo(f"status    {_status_line(name, cluster)}", err=True)
        if as_json:
            answer_json({"name": name, "submission_id": payload.submission_id, "address": cluster.address})
        return 0
    return follow(cluster, payload, plain, as_json)


def follow(cluster: Cluster, payload: Payload, plain: bool, as_json: bool) -> int:
    """Shows a submitted search until it ends or a signal comes; the search goes on after a signal.

    Returns the exit code: the search's, 0 after Ctrl-C, 128 + signal after another one.
    """
    import signal
    import sys

    from tuner.cli.output import (
        answer_json,
        cluster_place,
        labels_of_program,
        tell,
        view,
        width,
    )
    from tuner.report.machine import search_json
    from tuner.report.summary import summary
    from tuner.results.records import SearchRecord

    record, rest = SearchRecord(), deque[str](maxlen=_LAST_LINES)
    labels = labels_of_program(payload.metadata.get("program", "sft"))
    lines = plain or not sys.stderr.isatty()
    try:
        if lines:
            _read(cluster, payload, record, rest, lambda line: click.echo(line, err=True))
        else:
            with view(labels, record=record) as live:
                _read(cluster, payload, record, rest, None, live.say)
    except KeyboardInterrupt as stop:
        # A second signal may interrupt the generator that closes the stream; Python would print that exception.
        sys.unraisablehook = lambda unraisable: None
        number = getattr(stop, "number", signal.SIGINT)
        click.echo(f"\ndetached: {payload.name} goes on", err=True)
        click.echo(f"status    {_status_line(payload.name, cluster)}", err=True)
        click.echo(f"end it    ray job stop {payload.submission_id} --address {cluster.address}", err=True)
        return 0 if number == signal.SIGINT else 128 + number
    job = cluster.job(payload.submission_id)
    if not record.finished:
        return _unfinished(job, payload, cluster, [] if lines else rest)
    tell(summary(record, cluster_place(payload.name, job, cluster), width(sys.stderr), labels=labels))
    if as_json:
        answer_json({**search_json(record, job.path), "address": cluster.address})
    return job.exit_code if job.exit_code is not None else 1


def _read(
    cluster: Cluster,
    payload: Payload,
    record: SearchRecord,
    rest: deque[str],
    echo: Callable[[str], None] | None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Folds the events in a job's log into `record`. Passes other lines to `echo`, or keeps the last of them in
    `rest`."""
    from tuner.cluster.jobs import event_of

    if say:
        say("waiting for the cluster to start the job")
    for line in cluster.follow(payload.submission_id):
        event = event_of(line)
        if event is not None:
            if say:
                say("")
            record.apply(event)
        elif echo and not record.finished:
            echo(line)
        else:
            rest.append(line)


def _unfinished(job: Job, payload: Payload, cluster: Cluster, rest: Any) -> int:
    """Shows the last lines of a job that ended without the search's own ending, and returns its exit code."""
    for line in rest:
        click.echo(line, err=True)
    click.echo(f"the job {payload.submission_id} ended without a result: {job.status.lower()}", err=True)
    if job.message and job.exit_code is None:
        click.echo(job.message.strip().splitlines()[0], err=True)
    click.echo(f"its log   ray job logs {payload.submission_id} --address {cluster.address}", err=True)
    return job.exit_code or 1


def _fresh(
    file: Path | None,
    overrides: tuple[str, ...],
    include: tuple[Path, ...],
    flags: Mapping[str, Any],
    permission: Permission,
) -> Order:
    """A new search, checked here as far as that goes without the data."""
    from tuner.cli.options import load
    from tuner.cluster.parcel import pack
    from tuner.cluster.payload import make_payload, require_shared
    from tuner.driver.plan import make_plan
    from tuner.results.folder import default_name

    experiment = load(file, overrides, flags, elsewhere=True, permission=permission)
    make_plan(experiment)
    require_shared(experiment.run.storage_path)
    name = experiment.run.name or default_name()
    parcel = pack(experiment, include)

    def make(attempt: int) -> Payload:
        return make_payload(experiment, parcel, name=name, overrides=overrides, flags=flags, attempt=attempt)

    return name, parcel, make


def _resumed(
    name: str,
    file: Path | None,
    overrides: tuple[str, ...],
    include: tuple[Path, ...],
    flags: dict[str, Any],
    cluster: Cluster | None,
    modules: tuple[str, ...],
    accept_changes: bool,
) -> Order:
    """A resume of a search on the cluster: its settings are there, so only code is sent."""
    from tuner.cli.options import require_resume_alone
    from tuner.cluster.parcel import pack_code
    from tuner.cluster.payload import make_resume
    from tuner.config import find_allowed

    require_resume_alone(
        name, file, overrides, flags, _WITH_RESUME,
        "--num-trials, --storage-path, --allow-module, --accept-changes and --include",
    )  # fmt: skip
    before = cluster.jobs(name) if cluster else []
    known = before[-1].metadata if before else {}
    storage = flags.pop("run.storage_path", None) or known.get("storage_path", "runs")
    program = known.get("program", "sft")
    # Only modules that the user names are sent: the job's metadata may name any module of this machine.
    code = find_allowed(program, f"--resume {name}", modules)
    named = [own.module for own in code]
    parcel = pack_code(code, include)
    return name, parcel, lambda attempt: make_resume(name, storage, program, flags, attempt, named, accept_changes)


def _cluster(address: str) -> Cluster:
    from tuner.cluster.jobs import Cluster
    from tuner.contract import InputError

    if not address:
        raise InputError(
            "no cluster to submit to",
            where="--address",
            expected="the address of its Ray dashboard, such as http://head:8265 (also RAY_API_SERVER_ADDRESS)",
            remedy="`search` runs on this machine; --dry-run shows what would be sent",
        )
    return Cluster(address)


def _require_free(name: str, jobs: list[Job], cluster: Cluster) -> None:
    """Raises InputError if a job of the search is running."""
    from tuner.contract import InputError

    running = [job for job in jobs if not job.over]
    if running:
        raise InputError(
            f"the search {name!r} is running there already, as the job {running[-1].submission_id}",
            where=cluster.address,
            remedy=f"{_status_line(name, cluster)}, or choose another --name",
        )


def _tell_parcel(parcel: Parcel) -> None:
    from tuner.cluster.payload import contents
    from tuner.report.formatting import size

    told = contents(parcel)
    places = ", ".join(f"{place} {size(count)}" for place, count in told["places"].items())
    click.echo(f"sending   {size(told['bytes'])}: {places}; without {' '.join(told['excludes'])}", err=True)


def _dry_run(payload: Payload, parcel: Parcel) -> dict[str, Any]:
    from tuner.cluster.payload import contents, working_dir

    return {"request": payload.request(working_dir(parcel)), "parcel": contents(parcel)}


def _status_line(name: str, cluster: Cluster) -> str:
    from tuner.results.command_line import command_line

    return command_line("status", name, address=cluster.address)
