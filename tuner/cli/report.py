"""`tuner report`: what a search found, as a page of HTML, Markdown, JSON or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import Command, address_option, storage_option

if TYPE_CHECKING:
    from tuner.report.facts import Facts
    from tuner.results.folder import RunFolder
    from tuner.results.records import SearchRecord

PAGE = "report.html"
"""The page's name in the run folder."""


@click.command("report", cls=Command, prints=True, short_help="What a search found, as one page.")
@click.argument("name")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "json", "csv"]),
    default="html",
    show_default=True,
    help="A page with plots; text; facts for programs; a row a trial.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Where to write it.  [default: {PAGE} in the run folder; standard output for the others]",
)
@storage_option
@address_option
def command(name: str, kind: str, out: Path | None, storage_path: Path, address: str | None) -> int:
    """What the search NAME found: the best trial, which parameters mattered, every trial, where the time went, and what
    to run next.

    The page is one file that asks for nothing: mail it, or open it where there is no network. Reads the run folder
    alone, also while the search runs. With --address, reads a search that was submitted to a cluster; its page is
    written here, as NAME-report.html.
    """
    import sys

    _require_place(out)
    if kind == "html":
        _require_plotly()
    facts, path = _submitted(address, name) if address else _here(storage_path, name)
    if kind == "html":
        from tuner.report.page.search import page

        written = page(facts)
    else:
        from tuner.report import exports

        made = {"md": exports.as_markdown, "csv": exports.as_csv}
        written = made[kind](facts) if kind in made else exports.as_json(facts, path)
    if out is None and kind != "html":
        from tuner.streams import takes_utf8

        click.echo(written if takes_utf8(sys.stdout) else written.encode("ascii", "replace").decode(), nl=False)
        return 0
    beside = path / PAGE if isinstance(path, Path) else Path(f"{facts.place.name}-{PAGE}")
    _write(out if out is not None else beside, written)
    return 0


def _here(storage_path: Path, name: str) -> tuple[Facts, Path]:
    """What the report of a run folder says, and the folder."""
    from tuner.results.folder import open_run

    folder = open_run(storage_path, name)
    return _facts(folder), folder.path


def _submitted(address: str, name: str) -> tuple[Facts, str]:
    """What the report of a search on a cluster says, by the events of its jobs, and its run folder there."""
    from tuner.cli.output import cluster_place, labels_of_program
    from tuner.cluster.jobs import Cluster
    from tuner.cluster.searches import read_search
    from tuner.report.facts import Facts

    cluster = Cluster(address)
    found = read_search(cluster, name)
    if found.running is None:
        _leave(found.record)
    place = cluster_place(name, found.job, cluster)
    return Facts(found.record, place, labels_of_program(found.job.program)), found.job.path


def _leave(record: SearchRecord) -> None:
    """Notes that no driver runs the search any more."""
    for trial in record.trials.values():
        trial.interrupted = not trial.has_ended and not trial.parked


def _facts(folder: RunFolder) -> Facts:
    from tuner.cli.output import labels_of_run, place_of
    from tuner.contract import InputError
    from tuner.report.facts import Facts
    from tuner.results.lock import is_held
    from tuner.results.storage import is_written
    from tuner.results.untrusted_read import read_object

    record = folder.record()
    if record.finished or not (is_held(folder.path) or is_written(folder.path)):
        _leave(record)
    try:
        resolved = read_object(folder.resolved)
    except InputError:
        resolved = {}
    try:
        evaluation = read_object(folder.evaluation, links=False)
    except InputError:  # there is none, or it is damaged
        evaluation = {}
    return Facts(record, place_of(folder.path), labels_of_run(folder), resolved, evaluation)


def _require_plotly() -> None:
    from importlib.util import find_spec

    from tuner.contract import InputError

    if find_spec("plotly") is None:
        raise InputError(
            "plotly, which draws the plots, is not installed",
            where="--format html",
            expected="plotly, or --format md, json or csv",
            remedy="python -m pip install plotly",
        )


def _require_place(out: Path | None) -> None:
    """Raises InputError for a place where no file can be written, before anything is read."""
    from tuner.contract import InputError

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        what = "is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise InputError(what, where=f"--out {out}", expected="a file in a folder that is there")


def _write(place: Path, text: str) -> None:
    from tuner.contract import InputError
    from tuner.disks import replace_file
    from tuner.error_text import shown_path

    try:
        replace_file(place.absolute(), text)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror or error})",
            where=shown_path(place),
            expected="a place for the report",
            remedy="give another place: --out report.html",
        ) from error
    click.echo(f"wrote {shown_path(place)}", err=True)
