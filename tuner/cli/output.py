"""What a command writes, and to which stream.

A search reports its progress on standard error and keeps standard output for `--json`. A command that only reads
writes its answer to standard output, so that it can be piped.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from tuner.report.showing import Lines as Lines
from tuner.report.showing import labels_of_program as labels_of_program
from tuner.report.showing import labels_of_run as labels_of_run
from tuner.report.showing import place_of as place_of
from tuner.report.showing import view as view
from tuner.streams import takes_utf8

if TYPE_CHECKING:
    from tuner.cluster.jobs import Cluster, Job
    from tuner.report.lines import Line
    from tuner.report.summary import Place

WIDEST = 200
"""The most columns that text is laid out in; longer rows are hard to read."""


def width(stream: IO[str]) -> int:
    """The columns to lay out text in for a stream."""
    from tuner.report.lines import terminal_width

    return min(WIDEST, terminal_width(stream))


def ctrl_c_interrupts() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt, for a command that waits for it; `__main__` has set it to end the process
    at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tell(lines: Sequence[Line]) -> None:
    """Writes the progress and the end of a search to standard error."""
    from tuner.report.lines import write

    write(lines, sys.stderr)


def answer(lines: Sequence[Line]) -> None:
    """Writes the answer of a command that only reads to standard output."""
    from tuner.report.lines import write

    write(lines, sys.stdout)


def answer_json(value: Any) -> None:
    """Writes one JSON document to standard output."""
    from tuner.report.machine import dump

    click.echo(dump(value, ascii_only=not takes_utf8(sys.stdout)))


def answer_schema(schema: Mapping[str, Any]) -> None:
    """Writes a JSON Schema to standard output, indented for people."""
    import json

    click.echo(json.dumps(schema, indent=2, ensure_ascii=not takes_utf8(sys.stdout)))


def cluster_place(name: str, job: Job, cluster: Cluster) -> Place:
    """The same for a run folder on a cluster; nothing of it is read here."""
    from tuner.report.summary import Place

    return Place(name, job.path.rpartition("/")[0], address=cluster.address)
