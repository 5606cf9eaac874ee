"""`tuner add`: adds a person's own trial to a running search."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import Command, address_option, json_option, storage_option


@click.command("add", cls=Command, short_help="Suggest a trial to a running search.")
@click.argument("name")
@click.option(
    "--set", "overrides", multiple=True, metavar="PARAMETER=VALUE", help="A value of the trial; may be repeated."
)
@click.option("--like", type=int, metavar="TRIAL", help="Take over every other value from this trial; 0: the recipe.")
@storage_option
@address_option
@json_option
def command(
    name: str, overrides: tuple[str, ...], like: int | None, storage_path: Path, address: str | None, as_json: bool
) -> int:
    """Adds a trial of your own to the running search NAME, on top of those that are planned.

    What neither --set nor --like fixes, the sampler draws. The trial starts when a worker is free, is judged like any
    other, and the sampler learns from it.
    """
    from tuner.cli.asking import ask_driver, assignments

    return ask_driver(name, storage_path, address, as_json, "add", params=assignments(overrides), like=like)
