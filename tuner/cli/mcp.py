"""`tuner mcp`: tuner for agents, as a server of the Model Context Protocol."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tuner.cli.options import Command, allow_module_option, storage_option


@click.command("mcp", cls=Command, prints=True, short_help="Serve plan, search, status and more to agents.")
@click.option("--allow-write", is_flag=True, help="Also offer search, stop and add.")
@allow_module_option
@storage_option
def command(allow_write: bool, allow_module: tuple[str, ...], storage_path: Path) -> int:
    """Serves the Model Context Protocol on standard input and output, for an agent that starts this command.

    The tools are plan, status and show, which only read. With --allow-write also search, stop and add: the agent may
    then run what a search file names. Needs the SDK: python -m pip install 'tuner[mcp]'.
    """
    from importlib.util import find_spec

    from tuner.contract import InputError

    if find_spec("mcp") is None:
        raise InputError(
            "the SDK of the Model Context Protocol is not installed",
            where="tuner mcp",
            expected="the package mcp",
            remedy="python -m pip install 'tuner[mcp]'",
        )
    from tuner.mcp.server import serve
    from tuner.mcp.tools import Place

    standard = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = sys.__stdin__ or sys.stdin, sys.__stdout__ or sys.stdout  # the SDK takes over both
    try:
        serve(Place(storage_path, allow_module), writes=allow_write)
    finally:
        sys.stdin, sys.stdout = standard
    return 0
