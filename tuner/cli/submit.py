"""`tuner submit`: runs a search on a cluster, from this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.manifest import manifest_options
from tuner.cli.options import Command, accept_option, experiment_options, json_option
from tuner.signals import signals_raised

if TYPE_CHECKING:
    from tuner.cluster.jobs import Cluster
    from tuner.cluster.parcel import Parcel
    from tuner.cluster.payload import Payload
    from tuner.importing import Permission

    Order = tuple[str, Parcel, Callable[[int], Payload]]
    """The search's name, what is sent, and what makes its job: it takes the number of this job among those of the
    search, from 1."""

_WITH_RESUME = ("search.num_trials", "search.budget", "run.storage_path")
"""Settings that may be given beside --resume."""
_PLACES = 12
"""Files and folders that are named when they are sent, the largest ones."""
_WITH_ATTACH = ("attach", "run__address", "plain", "as_json")
"""Parameters of the command that may be given beside --attach."""


@click.command("submit", cls=Command, prints=True, short_help="Run a search on a cluster, from here.")
@experiment_options()
@click.option("--resume", metavar="NAME", help="Go on with a search on the cluster.")
@click.option("--attach", metavar="NAME", help="Follow a search that was submitted before.")
@accept_option
@click.option(
    "--include", multiple=True, type=click.Path(path_type=Path), metavar="PATH", help="Send a file or folder along."
)
@click.option("--detach", is_flag=True, help="Submit, and do not follow.")
@click.option("--dry-run", is_flag=True, help="Print the exact job; send nothing.")
@manifest_options
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@json_option
@signals_raised()
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    resume: str | None,
    attach: str | None,
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
    travel with the job; absolute ones are the cluster's. Ctrl-C detaches: the search goes on, and --attach NAME follows
    it again from any machine.
    """
    import os

    from tuner.cli.options import permitted, settings_given
    from tuner.cli.output import answer_json
    from tuner.contract import InputError
    from tuner.streams import show_output

    if attach is not None:
        _require_attach_alone(attach, click.get_current_context())
        from tuner.cli.following import attach as follow_again

        given = values["run__address"] or os.environ.get("RAY_API_SERVER_ADDRESS") or ""
        return follow_again(_cluster(given), attach, plain, as_json)
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
    from tuner.cli.following import follow_job
    from tuner.cluster.jobs import Job
    from tuner.cluster.searches import done, require_free

    require_free(cluster, name, resumes=resume is not None)
    if (
        resume is not None
        and (record := done(cluster, name, flags.get("search.num_trials"), more="search.budget" in flags)) is not None
    ):
        from tuner.report.summary import said_of_nothing_left

        click.echo(said_of_nothing_left(name, record), err=True)
        return 0
    payload = make(cluster.free_id(name))
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
    return follow_job(cluster, name, Job(payload.submission_id, "PENDING", dict(payload.metadata)), plain, as_json)


def _require_attach_alone(name: str, context: click.Context) -> None:
    """Raises InputError if an argument beside --attach would submit a search."""
    from click.core import ParameterSource

    from tuner.contract import InputError

    extra = [
        parameter.opts[0] if isinstance(parameter, click.Option) else "FILE"
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        and parameter.name not in _WITH_ATTACH
    ]
    if extra:
        raise InputError(
            f"{', '.join(extra)} would submit a search, and --attach follows one that was submitted",
            where=f"--attach {name}",
            expected="at most --address, --plain and --json beside it",
        )


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
        "--num-trials, --budget, --storage-path, --allow-module, --accept-changes and --include",
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


def _tell_parcel(parcel: Parcel) -> None:
    from tuner.cluster.payload import contents
    from tuner.report.formatting import size

    told = contents(parcel)
    largest = sorted(told["places"].items(), key=lambda item: -item[1])
    shown = dict(largest[:_PLACES])
    places = ", ".join(f"{place} {size(count)}" for place, count in told["places"].items() if place in shown)
    places += f" and {len(largest) - len(shown):,} smaller ones" if len(largest) > len(shown) else ""
    click.echo(f"sending   {size(told['bytes'])}: {places}; without {' '.join(told['excludes'])}", err=True)


def _dry_run(payload: Payload, parcel: Parcel) -> dict[str, Any]:
    from tuner.cluster.payload import contents, working_dir

    return {"request": payload.request(working_dir(parcel)), "parcel": contents(parcel)}


def _status_line(name: str, cluster: Cluster) -> str:
    from tuner.results.command_line import command_line

    return command_line("status", name, address=cluster.address)
