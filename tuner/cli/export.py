"""`tuner export`: copies the best adapter out of its run folder, merges it into its base, or writes it for a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    Command,
    accept_option,
    address_option,
    allow_module_option,
    json_option,
    storage_option,
)

if TYPE_CHECKING:
    from tuner.contract import Served


@click.command("export", cls=Command, short_help="Take the best adapter out, or merge it into its base.")
@click.argument("name")
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="DIR", help="A folder to make.")
@click.option("--merge", is_flag=True, help="Merge the adapter into its base: a whole model, not an adapter.")
@click.option("--for", "server", metavar="SERVER", help="Write what vllm, ollama, llama.cpp or peft needs to serve it.")
@click.option("--no-compare", is_flag=True, help="With --for: do not compare it with the trained model.")
@click.option("--program", metavar="PROGRAM", help="With --merge or --for: the program, if it is not a shipped one.")
@click.option(
    "--trust-remote-code", "trust_code", is_flag=True, help="With --merge or --for: run the base model's own code."
)
@allow_module_option
@accept_option
@storage_option
@address_option
@json_option
def command(
    name: str,
    to: Path,
    merge: bool,
    server: str | None,
    no_compare: bool,
    program: str | None,
    trust_code: bool,
    allow_module: tuple[str, ...],
    accept_changes: bool,
    storage_path: Path,
    address: str | None,
    as_json: bool,
) -> int:
    """Copies the best adapter of the search NAME to DIR, or merges it into its base with --merge. With --for, also
    writes what SERVER needs, compares what was written with the trained model, loaded anew by transformers and PEFT
    alone, and prints the commands that serve it. With --address, fetches the adapter from the cluster that the search
    was submitted to, and compares each file with its SHA-256.
    """
    if no_compare and not server:
        raise click.UsageError("--no-compare goes with --for: nothing else is compared")
    if address:
        return _fetched(name, to, merge, server, address, as_json)
    from tuner.report.lines import clean
    from tuner.results.folder import open_run

    folder = open_run(storage_path, name)
    from tuner.results.export import export_best

    if merge:
        click.echo("merging the adapter into its base ...", err=True)
    if server and not no_compare:
        click.echo("comparing what is written with the trained model (--no-compare leaves that out) ...", err=True)
    path, notes, served = export_best(
        folder, to, merge, program=program, trust_code=trust_code, modules=allow_module,
        accept_changes=accept_changes, server=server, compare=not no_compare,
    )  # fmt: skip
    for note in (*notes, *(served.notes if served else ())):
        click.echo(f"note: {clean(note)}", err=True)
    _tell(folder.name, path, merge, as_json, served)
    return 0


def _fetched(name: str, to: Path, merge: bool, server: str | None, address: str, as_json: bool) -> int:
    """Copies the best adapter of a search on a cluster to the new folder `to`."""
    import tempfile

    from tuner.cluster.errands import fetch
    from tuner.cluster.jobs import Cluster
    from tuner.contract import InputError
    from tuner.results.export import export_best, require_new
    from tuner.results.folder import RunFolder

    if merge or server:
        option = "--merge" if merge else "--for"
        raise InputError(
            f"{'a merge' if merge else 'an export for a server'} needs the base, and the search's is on the cluster",
            where=option,
            expected=f"--address without {option}",
            remedy="fetch the adapter, or export on a machine of the cluster with --storage-path",
        )
    require_new(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as place:
        folder = RunFolder(Path(place, "run"))
        fetch(Cluster(address), name, "best", folder.path)
        path, _, _ = export_best(folder, to)
    _tell(name, path, False, as_json)
    return 0


def _tell(name: str, path: Path, merged: bool, as_json: bool, served: Served | None = None) -> None:
    from tuner.cli.output import answer_json
    from tuner.error_text import shown_path
    from tuner.report.formatting import size
    from tuner.report.lines import clean

    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    what = "merged model" if merged else "adapter"
    if served and served.compared:
        click.echo(f"compared: {clean(served.compared)}", err=True)
    click.echo(f"exported the {what} of {name} to {shown_path(path)} ({size(total)})", err=True)
    if as_json:
        about = {"commands": list(served.commands), "compared": served.compared} if served else {}
        answer_json({"name": name, "path": str(path.resolve()), "merged": merged, "bytes": total, **about})
    for line in served.commands if served and not as_json else ():
        click.echo(line if line.isprintable() else clean(line))
