"""`tuner dashboard`: serves the dashboards of a search on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import Command, address_option, json_option, storage_option

if TYPE_CHECKING:
    from tuner.results.folder import RunFolder


@click.command("dashboard", cls=Command, short_help="The dashboards of a search.")
@click.argument("name")
@click.option("--open", "browse", is_flag=True, help="Open them in the browser.")
@click.option("--metrics", is_flag=True, help="Prometheus and Grafana, too, where they are installed.")
@storage_option
@address_option
@json_option
def command(name: str, browse: bool, metrics: bool, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Says where the Ray dashboard of the search NAME answers while it runs. Until Ctrl-C, and for this machine alone,
    it serves the Optuna dashboard on its study and TensorBoard on its curves. With --address, on a copy of what the
    cluster has of them now. With --metrics, it also runs Prometheus and Grafana on the gauges of the search.
    """
    import threading

    from tuner.cli.output import answer_json, ctrl_c_interrupts
    from tuner.report.lines import clean
    from tuner.results.folder import open_run
    from tuner.results.lock import is_held
    from tuner.surroundings import ray_token
    from tuner.watch.boards import BOARDS, signed_in, why_not

    with ExitStack() as stack:
        if address:
            folder, page = stack.enter_context(_copied(name, address)), address.rstrip("/")
        else:
            folder = open_run(storage_path, name)
            record = folder.record()
            page = record.dashboard if is_held(folder.path) and not record.finished else ""
        token = ray_token()
        urls: dict[str, str | None] = {"ray": stack.enter_context(signed_in(page, token)) if page else None}
        said = {"ray": _about(page, urls["ray"], token)}
        for board, (serve, *_) in BOARDS.items():
            said[board] = why_not(board, folder)
            urls[board] = None if said[board] else stack.enter_context(serve(folder))
        if metrics:
            _metrics(folder.name, page, token, stack, urls, said)
        if as_json:
            answer_json({"name": folder.name, **urls})
        else:
            for board, url in urls.items():
                click.echo(f"{board:<12} {clean(url or 'no')}" + (f" ({said[board]})" if said[board] else ""))
        for url in [url for url in urls.values() if url and browse]:
            click.launch(url)
        if any(url for board, url in urls.items() if board != "ray") or urls["ray"] not in (page, None):
            ctrl_c_interrupts()
            click.echo("Ctrl-C ends them", err=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                return 0
    return 0


def _metrics(
    name: str, page: str, token: str | None, stack: ExitStack, urls: dict[str, str | None], said: dict[str, str]
) -> None:
    """Runs Prometheus and Grafana on the gauges of a search whose page in the Ray dashboard this is."""
    from tuner.watch.metrics import INSTALL, grafana, program, prometheus

    source = ""
    for board in ("prometheus", "grafana"):
        url = None
        said[board] = "only while the search runs" if not page else ""
        if page and program(board) is None:
            said[board] = f"not installed; {INSTALL[board]}"
        elif page and (board == "prometheus" or source):
            url = stack.enter_context(prometheus(page, token) if board == "prometheus" else grafana(source, name))
            source = source or url
        elif page:
            said[board] = "it shows what Prometheus collects"
        urls[board] = url


@contextmanager
def _copied(name: str, address: str) -> Iterator[RunFolder]:
    """A copy of what the dashboards of a search on a cluster are made from, for as long as this is entered."""
    import tempfile
    import time

    from tuner.cluster.errands import fetch
    from tuner.cluster.jobs import Cluster
    from tuner.results.folder import RunFolder

    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        folder = RunFolder(Path(place, "run"))
        fetch(Cluster(address), name, "boards", folder.path)
        click.echo(f"a copy of {time.strftime('%H:%M:%S')}; the same command fetches a newer one", err=True)
        yield folder


def _about(page: str, url: str | None, token: str | None) -> str:
    """What is said beside the address of the Ray dashboard. page: the search's; "" where none answers."""
    from tuner.results.command_line import ray_command_line

    if not page:
        return "only while the search runs"
    if url != page:
        return f"signs in, and opens {page}"
    return f"its token: {token or ray_command_line('get-auth-token')}"
