"""`tuner plan`: says what a search would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tuner.cli.options import Command, experiment_options, json_option


@click.command("plan", cls=Command, prints=True, short_help="Say what a search would do; start nothing.")
@experiment_options()
@json_option
@click.option("--probe", "probes", is_flag=True, help="Run 20 steps of a few trials, and say what the search takes.")
@click.option("--schema", is_flag=True, help="The JSON Schema of experiment files, for editors.")
def command(
    file: Path | None, overrides: tuple[str, ...], as_json: bool, probes: bool, schema: bool, **values: Any
) -> int:
    """Says what `search` would do with the same FILE and options, what it is expected to take, and starts nothing.

    Reads and checks the settings and the space, and looks at the rows where they and the tokenizer are on this machine
    (`data` shows more). The weights are not opened, and no code that only FILE names is run (--allow-module). Times are
    those of the last search with the same settings on this machine. --probe measures them: it runs the first trials of
    the search for 20 steps each, two on every worker, with Ray and all, and keeps nothing.
    """
    import sys

    from tuner.cli.options import load, permitted, settings_given
    from tuner.cli.output import answer, answer_json, answer_schema, width

    flags, permission = settings_given(values), permitted(values, runs=probes)
    if schema:
        from tuner.config import experiment_schema, typed_program

        program = typed_program(flags.get("run.program", "sft"), "--program", permission)
        answer_schema(experiment_schema(program))
        return 0
    experiment = load(file, overrides, flags, permission=permission)
    from tuner.driver.plan import look_at_rows, make_plan

    plan = make_plan(experiment)
    look, refused = look_at_rows(plan)
    from dataclasses import asdict

    from tuner.addresses import joins
    from tuner.cluster.probe import gpu_bytes
    from tuner.driver.outlook import earlier_rates, outlook, whole_steps
    from tuner.results.rates import Rates

    if probes and not refused:
        from tuner.driver.probing import probe

        click.echo("probing: 20 steps of the first trials, two on each worker ...", err=True)
        rates: Rates | None = probe(experiment, whole_steps(plan, look))
    else:
        rates = earlier_rates(plan)
    seen = outlook(plan, look, rates, None if joins(experiment.run.address) else gpu_bytes())
    if as_json:
        told = {"data": look and asdict(look), "refused": refused or None, "outlook": seen.to_dict()}
        answer_json({**plan.to_dict(), **told})
        return 0
    from tuner.report.plan import plan_report

    answer(plan_report(plan, width(sys.stdout), look, refused, seen))
    return 0
