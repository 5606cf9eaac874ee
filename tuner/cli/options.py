"""The options that several commands share, and how flags become settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.streams import show_output

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.importing import Permission

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Command(click.Command):
    """A command. prints: its purpose is to print, so it ends if its output has no reader; any other command goes on."""

    def __init__(self, *arguments: Any, prints: bool = False, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._prints = prints

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses an option that takes one value and is given twice: click would take the last without a word."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for given, times in Counter(order).items():
            if isinstance(given, click.Option) and times > 1 and not (given.multiple or given.is_flag):
                raise click.UsageError(f"{given.opts[0]} is given {times} times, and takes one value", ctx=ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from tuner.surroundings import require_current_folder

        require_current_folder()
        if not self._prints:
            show_output()
        return super().invoke(ctx)


class NumberOrAuto(click.ParamType):
    """An integer, or the word auto. The settings check the range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return value if value == "auto" else int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)


class Amount(click.ParamType):
    """KEY=AMOUNT of a budget. The settings check both."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        key, equals, amount = str(value).partition("=")
        if not equals or not key.strip().isidentifier():
            self.fail(f"{value!r} is not KEY=AMOUNT, as in tokens=20M", param, ctx)
        from tuner.config.document import parse_value

        return key.strip(), parse_value(amount, f"--budget {value}")


def amounts_given(
    ctx: click.Context, param: click.Parameter, given: Sequence[tuple[str, Any]]
) -> dict[str, Any] | None:
    """The amounts of --budget by key; None without any."""
    if twice := [key for key, times in Counter(key for key, _ in given).items() if times > 1]:
        raise click.UsageError(f"--budget {twice[0]} is given twice, and takes one amount", ctx=ctx)
    return dict(given) or None


SETTINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("--model", "model.model_name_or_path", {"help": "Hub id or folder of the base model.", "metavar": "MODEL"}),
    ("--model-revision", "model.model_revision", {"help": "Branch, tag or commit of a hub model.", "metavar": "REV"}),
    ("--trust-remote-code", "model.trust_remote_code", {"help": "Run the model's own code; needs a revision."}),
    ("--data", "data.train", {"help": "Training data: a file, a datasets folder, or a hub id.", "metavar": "DATA"}),
    ("--validation", "data.validation", {"help": "Validation data; otherwise split off once.", "metavar": "DATA"}),
    (
        "--space",
        "search.space",
        {"help": "What is searched: a name, YAML, module:function.", "metavar": "SPACE"},
    ),
    ("--num-trials", "search.num_trials", {"help": "Trials in all, the recipe included.", "type": int}),
    (
        "--budget",
        "search.budget",
        {
            "help": "End at tokens=20M, wall_time=2h and so on; repeatable.",
            "type": Amount(),
            "multiple": True,
            "callback": amounts_given,
            "metavar": "KEY=AMOUNT",
        },
    ),
    ("--sampler", "search.sampler", {"help": "tpe, rungs, random, grid, gp, cmaes or qmc.", "metavar": "KIND"}),
    ("--seed", "search.seed", {"help": "Seed of the sampler and the trials.", "type": int}),
    ("--scheduler", "scheduler.kind", {"help": "asha, or none: every trial runs its whole budget.", "metavar": "KIND"}),
    (
        "--trials-per-gpu",
        "resources.trials_per_gpu",
        {"help": "Trials packed on a GPU; auto: measured.  [default: 1]", "type": NumberOrAuto(), "metavar": "N|auto"},
    ),
    (
        "--gpus-per-trial",
        "resources.gpus_per_trial",
        {"help": "GPUs that train a trial; a share of one; 0.", "type": float, "metavar": "N"},
    ),
    ("--name", "run.name", {"help": "Name of the run; by default the date and time.", "metavar": "NAME"}),
    ("--storage-path", "run.storage_path", {"help": "Folder of the runs.  [default: runs]", "metavar": "DIR"}),
    ("--program", "run.program", {"help": "What fine-tunes: sft, or package.module:Class.", "metavar": "PROGRAM"}),
    ("--address", "run.address", {"help": "A running Ray cluster, also RAY_ADDRESS.", "metavar": "HOST:PORT"}),
    ("--max-concurrent-trials", "resources.max_concurrent_trials", {"help": "Trials at once, at most.", "type": int}),
    ("--strict", "run.strict", {"help": "Refuse what would else be made to fit."}),
)
"""Flags that are settings: flag, dotted name, click's own words. `tuner.config.FLAGS` holds the same names."""

_ALIASES = {"--model-revision": ("--revision",), "--max-concurrent-trials": ("--max-concurrent",)}
"""Further names of flags."""
_SWITCHES = ("--trust-remote-code", "--strict")
"""Flags that take no value."""
_NOT_FOR_ONE_RUN = (
    "--space",
    "--num-trials",
    "--budget",
    "--sampler",
    "--scheduler",
    "--trials-per-gpu",
    "--max-concurrent-trials",
)
"""Flags that `train` does not have."""


allow_module_option = click.option(
    "--allow-module",
    "allow_module",
    multiple=True,
    metavar="NAME",
    help="Python of yours or installed that may be run; repeatable.",
)


_DATA_SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv", ".arrow", ".txt")


def one_file(ctx: click.Context, param: click.Parameter, files: Sequence[Path]) -> Path | None:
    """The search file of a command line. Raises InputError for files of rows in its place: the shell has expanded a
    pattern (`--data rows/*.jsonl`) to many names, or `--data` was forgotten."""
    from tuner.contract import InputError

    data = [file for file in files if file.suffix.lower() in _DATA_SUFFIXES]
    if data and (len(files) > 1 or not files[0].is_dir()):
        rows = "is a file of rows" if len(data) == 1 else f"and {len(data) - 1} more are files of rows"
        raise InputError(
            f"{data[0]} {rows}, not a search file",
            where="FILE",
            expected="at most one search file (YAML); rows go behind --data, one file or folder",
            remedy=f"--data {data[0]}"
            if len(files) == 1
            else "put the rows into one file: cat rows/*.jsonl > all.jsonl",
        )
    if len(files) > 1:
        raise InputError(
            f"{len(files)} files are given: {', '.join(map(str, files[:3]))}{', ...' if files[3:] else ''}",
            where="FILE",
            expected="at most one search file",
            remedy="give what changes a setting as --set section.key=value",
        )
    return files[0] if files else None


def setting_options(*flags: str) -> Callable[[Decorated], Decorated]:
    """Adds some of the flags that are settings, --set and --allow-module to a command."""

    def decorate(command: Decorated) -> Decorated:
        for flag, dotted, words in reversed(SETTINGS):
            if flag not in flags:
                continue
            more: dict[str, Any] = {"is_flag": True, "default": None} if flag in _SWITCHES else {}
            command = click.option(flag, *_ALIASES.get(flag, ()), _parameter(dotted), **words, **more)(command)
        command = allow_module_option(command)
        return click.option(
            "--set", "overrides", multiple=True, metavar="A.B=C", help="Any setting; may be given several times."
        )(command)

    return decorate


def experiment_options(one_run: bool = False) -> Callable[[Decorated], Decorated]:
    """Adds FILE, --set and the flags that are settings to a command. one_run: without the flags that only a search
    has."""

    def decorate(command: Decorated) -> Decorated:
        flags = [flag for flag, _, _ in SETTINGS if not (one_run and flag in _NOT_FOR_ONE_RUN)]
        command = setting_options(*flags)(command)
        shown = "[FILE|RUN]" if one_run else "[FILE]"
        return click.argument(
            "file", required=False, nargs=-1, metavar=shown, type=click.Path(path_type=Path), callback=one_file
        )(command)

    return decorate


def _parameter(dotted: str) -> str:
    """The command's parameter that takes a setting; click allows no dots in its name."""
    return dotted.replace(".", "__")


def settings_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that flags gave, by dotted name."""
    return {
        dotted: values[_parameter(dotted)] for _, dotted, _ in SETTINGS if values.get(_parameter(dotted)) is not None
    }


def require_resume_alone(
    name: str,
    file: Path | None,
    overrides: Sequence[str],
    given: Mapping[str, Any],
    allowed: Sequence[str],
    beside: str,
    remedy: str = "",
) -> None:
    """Raises InputError if something beside --resume would change the settings of the resumed search.

    given: the settings that were given as flags. allowed: those of them that are valid. beside: what is valid, in
    words.
    """
    from tuner.contract import InputError

    extra = [str(file)] if file else []
    extra += ["--set"] if overrides else []
    extra += [flag_of(key) for key in given if key not in allowed]
    if extra:
        raise InputError(
            f"a resumed search keeps its settings, and {', '.join(extra)} would change them",
            where=f"--resume {name}",
            expected=f"at most {beside} beside it",
            remedy=remedy,
        )


def flag_of(dotted: str) -> str:
    """The flag of a setting that has one."""
    return next(flag for flag, name, _ in SETTINGS if name == dotted)


def load(
    file: Path | None,
    overrides: tuple[str, ...],
    flags: Mapping[str, Any],
    elsewhere: bool = False,
    *,
    permission: Permission,
) -> Experiment:
    """The experiment of a command line. elsewhere: it will run on other machines."""
    from tuner.config import load_experiment

    return load_experiment(file, overrides, flags, elsewhere, permission)


def permitted(values: Mapping[str, Any], *, runs: bool) -> Permission:
    """Which code of the user's own the command may run. runs: it runs the search of its file, so code beside the file
    is permitted."""
    from tuner.importing import Permission

    return Permission.given(values.get("allow_module", ()), beside=runs)


def storage(text: str | Path) -> Path:
    """The folder of the runs; for a URI, this machine's working copy."""
    from tuner.config.paths import is_uri, storage_folder

    return storage_folder(text) if is_uri(str(text)) else Path(text)


accept_option = click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on where base, rows or code are not what they were; a note says so.",
)
storage_option = click.option(
    "--storage-path",
    default="runs",
    show_default=True,
    type=storage,
    metavar="DIR",
    help="Folder of the runs, or a URI.",
)
address_option = click.option(
    "--address",
    metavar="URL",
    help="A cluster that the search was submitted to: http://head:8265.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
