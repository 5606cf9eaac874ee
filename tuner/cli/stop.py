"""`tuner stop`: ends a running trial, or the whole search."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option


@click.command("stop", cls=Command, short_help="End a running trial, or the search.")
@click.argument("name")
@click.argument("number", metavar="[TRIAL]", type=int, required=False)
@storage_option
@address_option
@json_option
def command(name: str, number: int | None, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Ends trial TRIAL of the running search NAME, or the whole search without one.

    A stopped trial ends as `stopped: user`. A stopped search keeps its best adapter and ends as if it were done;
    `search --resume` (on a cluster, `submit --resume`) goes on with the trials that are left.
    """
    from tuner.cli.asking import ask_driver

    return ask_driver(name, storage_path, address, as_json, "stop", trial=number)
