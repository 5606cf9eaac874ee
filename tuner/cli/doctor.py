"""`tuner doctor`: placeholder."""

import click


@click.command("doctor", short_help="x")
def command() -> int:
    return 0
