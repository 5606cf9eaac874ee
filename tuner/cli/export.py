"""`tuner export`: copies the best adapter out of its run folder, or merges it into its base."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import (
    Command,
    accept_option,
    address_option,
    allow_module_option,
    json_option,
    storage_option,
)


@click.command("export", cls=Command, short_help="Take the best adapter out, or merge it into its base.")
@click.argument("name")
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="DIR", help="A folder to make.")
@click.option("--merge", is_flag=True, help="Merge the adapter into its base: a whole model, not an adapter.")
@click.option("--program", metavar="PROGRAM", help="With --merge: the search's program, if it is not a shipped one.")
@click.option("--trust-remote-code", "trust_code", is_flag=True, help="With --merge: run the base model's own code.")
@allow_module_option
@accept_option
@storage_option
@address_option
@json_option
def command(
    name: str,
    to: Path,
    merge: bool,
    program: str | None,
    trust_code: bool,
    allow_module: tuple[str, ...],
    accept_changes: bool,
    storage_path: Path,
    address: str | None,
    as_json: bool,
) -> int:
    """Copies the best adapter of the search NAME to DIR, or merges it into its base with --merge. With --address,
    fetches the adapter from the cluster that the search was submitted to, and compares each file with its SHA-256.
    """
    if address:
        return _fetched(name, to, merge, address, as_json)
    from tuner.report.lines import clean
    from tuner.results.folder import open_run

    folder = open_run(storage_path, name)
    from tuner.results.export import export_best

    if merge:
        click.echo("merging the adapter into its base ...", err=True)
    path, notes = export_best(
        folder, to, merge, program=program, trust_code=trust_code, modules=allow_module,
        accept_changes=accept_changes,
    )  # fmt: skip
    for note in notes:
        click.echo(f"note: {clean(note)}", err=True)
    _tell(folder.name, path, merge, as_json)
    return 0


def _fetched(name: str, to: Path, merge: bool, address: str, as_json: bool) -> int:
    """Copies the best adapter of a search on a cluster to the new folder `to`."""
    import tempfile

    from tuner.cluster.errands import fetch
    from tuner.cluster.jobs import Cluster
    from tuner.contract import InputError
    from tuner.results.export import export_best, require_new
    from tuner.results.folder import RunFolder

    if merge:
        raise InputError(
            "a merge needs the base, and the search's is on the cluster",
            where="--merge",
            expected="--address without --merge",
            remedy="fetch the adapter, or merge on a machine of the cluster with --storage-path",
        )
    require_new(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as place:
        folder = RunFolder(Path(place, "run"))
        fetch(Cluster(address), name, "best", folder.path)
        path, _ = export_best(folder, to)
    _tell(name, path, False, as_json)
    return 0


def _tell(name: str, path: Path, merged: bool, as_json: bool) -> None:
    from tuner.cli.output import answer_json
    from tuner.error_text import shown_path
    from tuner.report.formatting import size

    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    what = "merged model" if merged else "adapter"
    click.echo(f"exported the {what} of {name} to {shown_path(path)} ({size(total)})", err=True)
    if as_json:
        answer_json({"name": name, "path": str(path.resolve()), "merged": merged, "bytes": total})
