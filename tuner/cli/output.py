"""What a command writes, and to which stream.

A search reports its progress on standard error and keeps standard output for `--json`. A command that only reads
writes its answer to standard output, so that it can be piped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from tuner.streams import takes_utf8

if TYPE_CHECKING:
    from tuner.cluster.jobs import Cluster, Job
    from tuner.report.lines import Line
    from tuner.report.live import LiveView
    from tuner.report.plain import PlainView
    from tuner.report.summary import Place
    from tuner.results.folder import RunFolder
    from tuner.results.records import SearchRecord

WIDEST = 200
"""The most columns that text is laid out in; longer rows are hard to read."""


Lines = Literal["bounded", "all"] | None
"""Plain lines instead of the live view: a bounded number of them, or one for every event; None: as the terminal can."""


def view(labels: Mapping[str, str], lines: Lines = None, record: SearchRecord | None = None) -> LiveView | PlainView:
    """The view of a running search: live on a terminal, plain lines elsewhere. record: of its earlier sessions."""
    if lines or not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        from tuner.report.plain import PlainView

        return PlainView(labels, record=record, verbose=lines == "all")
    from tuner.report.live import LiveView

    return LiveView(labels, record=record)


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


def labels_of_program(program: str) -> dict[str, str]:
    """Column headings by parameter name, from the program; empty for a user's own program that is not imported yet."""
    from tuner.contract import PROGRAMS, load_program

    if program not in PROGRAMS and program.partition(":")[0] not in sys.modules:
        return {}
    parameters = load_program(program).PARAMETERS
    return {name: parameter.label for name, parameter in parameters.items() if parameter.label}


def labels_of_run(folder: RunFolder) -> dict[str, str]:
    """Column headings by parameter name, as the search wrote them into its folder. A program that a run folder names
    is not imported."""
    from tuner.contract import PROGRAMS, InputError
    from tuner.results.untrusted_read import read_object

    try:
        resolved = read_object(folder.resolved)
    except InputError:
        return {}
    about, run = resolved.get("about"), resolved.get("run")
    labels = about.get("labels") if isinstance(about, dict) else None
    if isinstance(labels, dict):
        return {name: label for name, label in labels.items() if isinstance(label, str)}
    program = run.get("program") if isinstance(run, dict) else None
    return labels_of_program(program) if isinstance(program, str) and program in PROGRAMS else {}


def keys_of_run(path: Path) -> dict[str, str]:
    """The dotted names of the settings of a run's program, by their last part, as far as one stands for one."""
    from tuner.config.sections import Sections
    from tuner.contract import InputError
    from tuner.results.untrusted_read import read_object

    try:
        resolved = read_object(path / "resolved.json")
    except InputError:
        return {}
    ours = {*Sections.model_fields, "about"}
    own = {name: part for name, part in resolved.items() if isinstance(part, dict) and name not in ours}
    told = [(key, f"{name}.{key}") for name, part in own.items() for key in part if f"{name}{key}".isidentifier()]
    return {key: dotted for key, dotted in told if sum(other == key for other, _ in told) == 1}


def place_of(path: Path) -> Place:
    """A run folder's name and paths as the user would type them from here."""
    from tuner.error_text import shown_path
    from tuner.report.summary import Place, kept_in
    from tuner.results.command_line import shown_storage

    log = path / "logs" / "driver.log"
    return Place(
        name=path.name,
        storage_path=shown_storage(path.parent),
        log=shown_path(log) if log.exists() else "",
        kept=kept_in(path / "best"),
        keys=keys_of_run(path),
    )


def cluster_place(name: str, job: Job, cluster: Cluster) -> Place:
    """The same for a run folder on a cluster; nothing of it is read here."""
    from tuner.report.summary import Place

    return Place(name, job.path.rpartition("/")[0], address=cluster.address)
