"""What a search is shown with: the view of one that runs, and what of its folder names it and its columns."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tuner.report.live import LiveView
    from tuner.report.plain import PlainView
    from tuner.report.summary import Place
    from tuner.results.folder import RunFolder
    from tuner.results.records import SearchRecord

Lines = Literal["bounded", "all"] | None
"""Plain lines instead of the live view: a bounded number of them, or one for every event; None: as the terminal can."""


def view(labels: Mapping[str, str], lines: Lines = None, record: SearchRecord | None = None) -> LiveView | PlainView:
    """The view of a running search: live on a terminal, plain lines elsewhere. record: of its earlier sessions."""
    if lines or not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        from tuner.report.plain import PlainView

        return PlainView(labels, record=record, verbose=lines == "all")
    from tuner.report.live import LiveView

    return LiveView(labels, record=record)


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
