"""`tuner dashboard`: serves the dashboards of a search on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, json_option, storage_option


@click.command("dashboard", cls=Command, short_help="The dashboards of a search.")
@click.argument("name")
@click.option("--open", "browse", is_flag=True, help="Open them in the browser.")
@storage_option
@json_option
def command(name: str, browse: bool, storage_path: Path, as_json: bool) -> int:
    """Says where the Ray dashboard of the search NAME answers while it runs. Until Ctrl-C, and for this machine alone,
    it serves the Optuna dashboard on its study and TensorBoard on its curves.
    """
    import threading
    from contextlib import ExitStack

    from tuner.cli.output import answer_json, ctrl_c_interrupts
    from tuner.report.lines import clean
    from tuner.results.folder import open_run
    from tuner.results.lock import is_held
    from tuner.watch.boards import BOARDS, why_not

    folder = open_run(storage_path, name)
    record = folder.record()
    running = is_held(folder.path) and not record.finished
    urls: dict[str, str | None] = {"ray": record.dashboard if running and record.dashboard else None}
    said = {"ray": "its token: ray get-auth-token" if urls["ray"] else "only while the search runs"}
    with ExitStack() as stack:
        for board, (serve, *_) in BOARDS.items():
            said[board] = why_not(board, folder)
            urls[board] = None if said[board] else stack.enter_context(serve(folder))
        if as_json:
            answer_json({"name": folder.name, **urls})
        else:
            for board, url in urls.items():
                click.echo(f"{board:<12} {clean(url or 'no')}" + (f" ({said[board]})" if said[board] else ""))
        for url in [url for url in urls.values() if url and browse]:
            click.launch(url)
        if any(urls[board] for board in BOARDS):
            ctrl_c_interrupts()
            click.echo("Ctrl-C ends them", err=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                return 0
    return 0
