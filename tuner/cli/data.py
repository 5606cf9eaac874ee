"""`tuner data`: shows the rows as the model sees them, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, json_option, setting_options, storage_option

if TYPE_CHECKING:
    from tuner.config import Experiment

_ROWS, _ROWS_OF_A_PAGE = 3, 24
_MOST_ROWS = 1000
_BASE = "the embedded base's tokenizer: --model names another"


@click.command("data", cls=Command, prints=True, short_help="Show the rows as the model sees them.")
@click.argument("target", required=False, metavar="[FILE|SEARCH]")
@setting_options("--model", "--model-revision", "--trust-remote-code", "--validation", "--program")
@click.option("--rows", "num_rows", type=click.IntRange(0, _MOST_ROWS), metavar="N", help="Rows to show.  [default: 3]")
@click.option("--row", type=click.IntRange(1), metavar="NUMBER", help="Show this row of the file, and all of it.")
@click.option("--all", "whole", is_flag=True, help="Count all rows of a large file, not a sample.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one page of HTML, too.")
@storage_option
@json_option
def command(
    target: str | None,
    overrides: tuple[str, ...],
    num_rows: int | None,
    row: int | None,
    whole: bool,
    html: Path | None,
    storage_path: Path,
    as_json: bool,
    **values: Any,
) -> int:
    """Shows rows as the model sees them, which tokens are learned, how long rows are, and what is cut or left out.

    FILE is a file of rows, a folder written by `datasets`, or a hub id; SEARCH is a search file (YAML) or the name of a
    run. Without either, the embedded example. Nothing is started, and torch is not needed. Exit code 2 where a search
    would refuse the rows.
    """
    import sys
    from dataclasses import asdict

    from tuner.cli.output import answer, answer_json, width
    from tuner.contract import InputError, LookRequest
    from tuner.report.counter import Counter

    _require_page(html)
    experiment, note = _experiment(target, overrides, storage_path, values)
    shown = num_rows if num_rows is not None else _ROWS_OF_A_PAGE if html else _ROWS
    trusts = bool(values.get("model__trust_remote_code"))
    with Counter() as tell:
        request = LookRequest(show=shown, row=row, whole=whole, foreign_code=trusts, tell=tell)
        look = experiment.program_class.look(experiment.settings, request)
    if look is None:
        raise InputError(f"the program {experiment.program} shows no rows", where="run.program",
                         expected="a program with a method `look`, such as sft")  # fmt: skip
    if html is not None:
        _write_page(html, look, note)
    if as_json:
        answer_json({**asdict(look), "note": note, "page": html and str(html.resolve())})
    else:
        from tuner.report.data import data_report

        answer(data_report(look, width(sys.stdout), note=note, brief=row is None, most=_ROWS if html else shown))
    if html is not None:
        from tuner.error_text import shown_path

        click.echo(f"wrote {shown_path(html)}", err=True)
    if look.refusal:
        raise InputError.from_dict(look.refusal)
    return 0


def _experiment(
    target: str | None, overrides: tuple[str, ...], storage_path: Path, values: Mapping[str, Any]
) -> tuple[Experiment, str]:
    """The settings to look with, and a note on what was chosen; "" for none."""
    from tuner.cli.options import load, permitted, settings_given
    from tuner.config import demo_path
    from tuner.config.flags import FLAGS

    flags, permission = settings_given(values), permitted(values, runs=False)
    path = Path(target) if target is not None else None
    if path is None or path.suffix.lower() in (".yaml", ".yml"):
        return load(path, overrides, flags, permission=permission), ""
    if _is_run(path, target or "", storage_path):
        return _of_run(target or "", overrides, storage_path, flags, permission), ""
    note = "" if FLAGS["--model"] in flags or "--program" in flags else _BASE
    if note:
        flags[FLAGS["--model"]] = str(demo_path().parent / "base")
    flags[FLAGS["--data"]] = target
    return load(None, overrides, flags, permission=permission), note


def _is_run(path: Path, target: str, storage_path: Path) -> bool:
    """Whether a name is that of a run: its folder is there, or it can be nothing else."""
    if (path / "trials.jsonl").is_file() or (storage_path / target / "trials.jsonl").is_file():
        return True
    return not path.exists() and not path.suffix and "/" not in target


def _of_run(
    name: str, overrides: tuple[str, ...], storage_path: Path, flags: Mapping[str, Any], permission: Any
) -> Experiment:
    """The settings of a run, as its folder has them."""
    from tuner.contract import InputError
    from tuner.driver.resolved_settings import read_settings
    from tuner.results.folder import open_run

    folder = open_run(storage_path, name)
    if overrides or flags:
        raise InputError("a run keeps its settings", where=name, expected="no settings beside the name of a run",
                         remedy=f"give its settings as a file: {folder.experiment}")  # fmt: skip
    return read_settings(folder, folder.record().settings_digest, permission)


def _require_page(html: Path | None) -> None:
    """Raises InputError for a place where no page can be written, before anything is read."""
    from tuner.contract import InputError

    if html is None:
        return
    if html.suffix.lower() not in (".html", ".htm"):
        raise InputError("not a page of HTML by its name", where=f"--html {html}", expected="a name that ends in .html")
    if html.is_dir() or not html.absolute().parent.is_dir():
        what = "is a folder" if html.is_dir() else f"there is no folder {html.parent}"
        raise InputError(what, where=f"--html {html}", expected="a file in a folder that is there")


def _write_page(html: Path, look: Any, note: str) -> None:
    from tuner.contract import InputError
    from tuner.disks import replace_file
    from tuner.report.data_page import page

    try:
        replace_file(html.absolute(), page(look, note))
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", where=str(html),
                         expected="a place for the page") from error  # fmt: skip
