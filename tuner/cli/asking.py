"""Sends a request to the driver of a running search, for `stop`, `add`, `pause` and `resume`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


def ask_driver(name: str, storage_path: Path, address: str | None, as_json: bool, action: str, **values: Any) -> int:
    """Sends a request to the driver of the run NAME, waits for its answer, and prints it.

    address: of the cluster that the search was submitted to; None for a run at `storage_path`. values: the arguments of
    `action`. Raises InputError if the driver refuses or does not answer.
    """
    from tuner.cli.output import answer_json

    if address:
        from tuner.cluster import errands
        from tuner.cluster.jobs import Cluster

        message = errands.ask(Cluster(address), name, action, values)
    else:
        from tuner.results.folder import open_run
        from tuner.results.requests import ask

        folder = open_run(storage_path, name)
        name, message = folder.name, ask(folder, action, values)
    if as_json:
        answer_json({"name": name, "action": action, "message": message})
    else:
        click.echo(message)
    return 0


def assignments(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    """The values of `--set lora_r=64` by parameter, {"lora_r": 64}; YAML says which type a value has."""
    from tuner.config.document import parse_value
    from tuner.contract import InputError

    given: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        where = f"--set {text}"
        if not equals or not name.strip():
            raise InputError("not an assignment", where=where, expected="parameter=value, as in lora_r=64")
        if name.strip() in given:
            raise InputError("the same parameter twice", where=where, expected="one value for each")
        given[name.strip()] = parse_value(value, where)
    return given
