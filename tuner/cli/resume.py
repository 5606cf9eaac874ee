"""`tuner resume`: lets a paused search go on."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option


@click.command("resume", cls=Command, short_help="Let a paused search go on.")
@click.argument("name")
@storage_option
@address_option
@json_option
def command(name: str, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Lets the paused search NAME go on. A search whose driver has ended goes on with `search --resume NAME`, and
    on a cluster with `submit --resume NAME`.
    """
    from tuner.cli.asking import ask_driver

    return ask_driver(name, storage_path, address, as_json, "resume")
