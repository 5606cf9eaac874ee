"""`tuner pause`: makes the trials of a running search wait."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option


@click.command("pause", cls=Command, short_help="Let a running search wait.")
@click.argument("name")
@storage_option
@address_option
@json_option
def command(name: str, storage_path: Path, address: str | None, as_json: bool) -> int:
    """Pauses the running search NAME: each running trial waits at its next evaluation, and none starts.

    A waiting trial keeps its worker and its memory, and trains on from where it is after `resume`.
    """
    from tuner.cli.asking import ask_driver

    return ask_driver(name, storage_path, address, as_json, "pause")
