"""`tuner evaluate`: base, recipe and winner side by side on rows that no trial learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, accept_option, allow_module_option, json_option, storage_option

if TYPE_CHECKING:
    from tuner.results.folder import RunFolder
    from tuner.results.scoring import Asked, Evaluated

_METRICS = ("exact_match", "rouge_l")


class _Trials(click.ParamType):
    """Numbers of trials, with commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(int(part) for part in value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of trials, such as 3,7", param, ctx)


@click.command("evaluate", cls=Command, prints=True, short_help="Base, recipe and winner side by side on test rows.")
@click.argument("name")
@click.option("--data", "rows", required=True, metavar="DATA", help="Test rows: a file, a folder, or a hub id.")
@click.option("--split", default="train", show_default=True, help="Which split of DATA, where it has some.")
@click.option("--trials", type=_Trials(), default=(), metavar="N,N", help="Trials in place of recipe and winner.")
@click.option("--metric", "metrics", multiple=True, metavar="METRIC",
              help="A metric of answers, also your own package.module:function; repeatable.  "
              f"[default: {', '.join(_METRICS)}]")  # fmt: skip
@click.option("--no-answers", is_flag=True, help="Losses alone: generate nothing.")
@click.option("--answers", "most_answers", type=click.IntRange(1), default=200, show_default=True,
              help="Rows that get an answer, at most.")  # fmt: skip
@click.option("--max-new-tokens", type=click.IntRange(1), metavar="N", help="Tokens of an answer, at most.")
@click.option("--rows", "most_rows", type=click.IntRange(1), metavar="N", help="Rows that are scored, at most.")
@click.option("--also", default="", metavar="DATA", help="Other rows, whose loss shows what was forgotten.")
@click.option("--judge", metavar="FUNCTION", help="package.module:function that says which of two answers is better.")
@click.option("--judge-seconds", type=float, default=60.0, show_default=True, help="Time for one call of the judge.")
@click.option("--lm-eval", "tasks", metavar="TASKS", help="Then run these tasks of lm-evaluation-harness on each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of rows.")
@click.option("--program", metavar="PROGRAM", help="The search's program, if it is not a shipped one.")
@click.option("--trust-remote-code", "trust_code", is_flag=True, help="Run the base model's own code.")
@allow_module_option
@accept_option
@storage_option
@json_option
def command(
    name: str,
    rows: str,
    split: str,
    trials: tuple[int, ...],
    metrics: tuple[str, ...],
    no_answers: bool,
    most_answers: int,
    max_new_tokens: int | None,
    most_rows: int | None,
    also: str,
    judge: str | None,
    judge_seconds: float,
    tasks: str | None,
    seed: int,
    program: str | None,
    trust_code: bool,
    allow_module: tuple[str, ...],
    accept_changes: bool,
    storage_path: Path,
    as_json: bool,
) -> int:
    """Scores the base, the recipe and the winner of the search NAME on test rows: loss per token, perplexity, and
    metrics of greedy answers, each with its interval, and compared row by row. NAME may also be a folder with an
    adapter or a model, or a model's id on the hub.

    The metrics are exact_match, contains, regex:PATTERN, json_fields, rouge_l, chrf and token_f1.
    """
    import sys

    from tuner.cli.output import answer, answer_json, width
    from tuner.report.evaluation import evaluation, evaluation_json
    from tuner.results import harness
    from tuner.results.scoring import located

    if no_answers and (metrics or judge):
        raise click.UsageError("--no-answers leaves nothing for --metric and --judge to score")
    if tasks:
        harness.require()
    more = {"split": split, "answers": not no_answers, "most_answers": most_answers, "most_tokens": max_new_tokens,
            "most_rows": most_rows, "also": located(also), "seed": seed}  # fmt: skip
    asked = _asked(rows, () if no_answers else metrics or _METRICS, judge, judge_seconds, allow_module, trials, more)
    found, folder = _scored(name, asked, storage_path, program, trust_code, allow_module, accept_changes)
    told = evaluation_json(found)
    if folder is not None:
        _keep(folder, told)
    if as_json:
        answer_json(told)
    else:
        answer(evaluation(found, width(sys.stdout)))
    _require_judged(found)
    if tasks:
        return harness.run({one.name: one.harness for one in found.scored.candidates}, tasks)
    return 0


def _asked(
    rows: str,
    metrics: tuple[str, ...],
    judge: str | None,
    judge_seconds: float,
    modules: tuple[str, ...],
    trials: tuple[int, ...],
    more: dict[str, Any],
) -> Asked:
    """What is asked for. Raises InputError for functions of the user's own that cannot be used."""
    from tuner.contract import InputError
    from tuner.results import own_functions
    from tuner.results.scoring import Asked

    own_names = [spec for spec in metrics if "." in spec.partition(":")[0] or _is_module(spec)]
    own = tuple(own_functions.metric(spec, modules) for spec in own_names)
    names = [*(spec for spec in metrics if spec not in own_names), *(function.name for function in own)]
    if double := next((one for one in names if names.count(one) > 1), None):
        raise InputError(f"two metrics are called {double!r}", where="--metric", expected="names of their own")
    judging = own_functions.judge(judge, modules, judge_seconds) if judge else None
    shipped = tuple(spec for spec in metrics if spec not in own_names)
    return Asked(rows, shipped, own, judging, trials, more)


def _is_module(spec: str) -> bool:
    """Whether `module:function` is meant: a module of that name lies in the current folder."""
    module, colon, function = spec.partition(":")
    return bool(colon) and function.isidentifier() and Path(f"{module}.py").is_file()


def _scored(
    name: str,
    asked: Asked,
    storage_path: Path,
    program: str | None,
    trust_code: bool,
    modules: tuple[str, ...],
    accept_changes: bool,
) -> tuple[Evaluated, RunFolder | None]:
    """What was found, and the run's folder; None where there is no run."""
    from tuner.contract import InputError
    from tuner.report.counter import Counter
    from tuner.results.folder import open_run
    from tuner.results.scoring import score_model, score_run

    place = Path(name)
    with Counter() as tell:
        if any((place / file).is_file() for file in ("adapter_config.json", "config.json")):
            _require_no_trials(name, asked)
            return score_model(name, asked, tell), None
        try:
            folder = open_run(storage_path, name)
        except InputError:
            if name.count("/") != 1 or place.exists():
                raise
            _require_no_trials(name, asked)
            return score_model(name, asked, tell), None
        found = score_run(folder, asked, program=program, trust_code=trust_code, modules=modules,
                          accept_changes=accept_changes, tell=tell)  # fmt: skip
        return found, folder


def _keep(folder: RunFolder, told: dict[str, Any]) -> None:
    """Writes the evaluation into the run folder, for the report; says so where it cannot be written."""
    from tuner.disks import replace_file
    from tuner.report.machine import dump

    try:
        replace_file(folder.evaluation, dump(told) + "\n")
    except OSError as error:
        click.echo(f"note: the evaluation is not kept for the report ({error.strerror or error})", err=True)


def _require_no_trials(name: str, asked: Asked) -> None:
    from tuner.contract import InputError

    if asked.trials:
        raise InputError("it belongs to no run, and has no trials", where=name, expected="a run's name with --trials")


def _require_judged(found: Evaluated) -> None:
    """Raises InputError where the judge failed; all else was printed before."""
    from tuner.contract import InputError

    if found.judged is not None and found.judged.failed:
        raise InputError(
            f"the judge was asked about {found.judged.asked} rows and then failed: {found.judged.failed}",
            where="--judge",
            expected="a number for every two answers, in time",
            remedy="mend it, or give it more time with --judge-seconds",
        )
