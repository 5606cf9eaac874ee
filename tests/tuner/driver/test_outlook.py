"""What a search is foreseen to take: tokens of the rows, times of trials that were measured, and what is said of it."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.config import dump_resolved, load_experiment
from tuner.contract import Look, RowSet
from tuner.driver.outlook import Outlook, earlier_rates, outlook, whole_steps
from tuner.driver.plan import Plan, make_plan
from tuner.driver.probing import AT, STEPS, places
from tuner.report.lines import plain
from tuner.report.outlook import outlook_lines
from tuner.results.rates import Rates

RATES = Rates(
    source="a probe just now", workers=2, at_once=2, gpus=2.0, start_s=20.0, begin_s=0.5, step_s=0.1, evaluation_s=1.0,
    end_s=1.0, step_tokens=160.0, tokens=(16_000.0,), steps=100.0,
)  # fmt: skip


def plan_of(*overrides: str, **flags: Any) -> Plan:
    return make_plan(load_experiment(None, list(overrides), {name.replace("__", "."): v for name, v in flags.items()}))


def look(rows: int = 1000, tokens: int = 40_000) -> Look:
    train = RowSet("train", "train.jsonl", rows, looked=rows // 2, tokens=tokens // 2, learned=0, unknown=None)
    return Look({}, "base", 1024, "data.max_length", (train,))


def test_tokens_follow_the_rows_the_batches_of_the_space_and_the_ladder() -> None:
    seen = outlook(plan_of(), look(), None)
    assert seen.whole_tokens == 100 * 4 * 40  # steps, rows of a step, tokens of a row
    whole = outlook(plan_of("scheduler=none"), look(), None)
    assert whole.of_all == pytest.approx(1.0) and whole.tokens is not None and seen.tokens is not None
    # The recipe has batches of 4; the other fifteen of 2, 4 or 8, in the mean 4.67
    assert whole.tokens.likely == pytest.approx(16_000 * (1 + 15 * 4.67 / 4), rel=0.05)
    assert seen.tokens.likely == pytest.approx(seen.of_all * whole.tokens.likely, rel=0.05)
    assert 0.3 < seen.of_all < 0.45


def test_the_default_search_takes_what_it_took() -> None:
    """122,214 tokens, on every machine."""
    from tuner.contract import LookRequest

    plan = plan_of()
    found = plan.program.look(plan.experiment.settings, LookRequest(show=0, only_here=True))
    seen = outlook(plan, found, None)
    assert seen.tokens is not None
    assert seen.tokens.likely == pytest.approx(122_214, rel=0.2)
    assert seen.tokens.least < 122_214 < seen.tokens.most


def test_epochs_have_as_many_steps_as_the_rows_give() -> None:
    plan = plan_of("train.max_steps=null", "train.num_train_epochs=2")
    assert whole_steps(plan, look()) == 2 * 1000 / 4 and whole_steps(plan, None) is None
    assert outlook(plan, look(), None).whole_tokens == 2 * 40_000


def test_times_are_those_that_were_measured() -> None:
    seen = outlook(plan_of("scheduler=none", "search.num_trials=1"), look(), RATES)
    # one trial: 0.5 s to begin, 100 steps, 12 evaluations, 20 s before it and 1 s after
    count = len(plan_of("scheduler=none").evaluate_at)
    assert seen.wall_s is not None and seen.wall_s.likely == pytest.approx(21.5 + 10 + count, rel=0.01)
    assert seen.gpu_hours is not None and seen.gpu_hours.likely == pytest.approx(2 * seen.wall_s.likely / 3600)
    assert seen.price is None and seen.measured == "a probe just now"


def test_steps_with_more_tokens_than_those_measured_take_longer() -> None:
    one = outlook(plan_of("scheduler=none", "search.num_trials=1"), look(), replace(RATES, step_tokens=80.0))
    usual = outlook(plan_of("scheduler=none", "search.num_trials=1"), look(), RATES)
    assert one.wall_s and usual.wall_s
    assert one.wall_s.likely - usual.wall_s.likely == pytest.approx(10 / 2), "twice the tokens: half as long again"


def test_a_price_needs_gpus() -> None:
    plan = plan_of("run.price_per_gpu_hour=36")
    seen = outlook(plan, look(), RATES)
    assert seen.price is not None and seen.gpu_hours is not None
    assert seen.price.likely == pytest.approx(36 * seen.gpu_hours.likely)
    told = plain(outlook_lines(seen, plan, 200))
    assert "GPU-hours, which cost about " in told and " at 36 each" in told
    assert outlook(plan, look(), replace(RATES, gpus=0.0)).price is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["search.budget.tokens=20k"], "search.budget.tokens: 20k will end the search after about "),
        (["search.budget.tokens=15k"], "recipe's trial: no trial will run to its end"),
        (["search.budget.wall_time=30 s"], "search.budget.wall_time: 30 s will end the search after about "),
        (["search.budget.gpu_hours=0.01"], "search.budget.gpu_hours: 0.01 will end the search after about "),
        (["search.budget.money=0.1", "run.price_per_gpu_hour=36"], "search.budget.money: 0.1 will end the search"),
        (["search.budget.until={gain_below: 1%, next: 16}"], "16 trials without gain are never reached by a search of"),
        (["search.budget={tokens: 10M, wall_time: 9h, gpu_hours: 9}"], None),
    ],
)
def test_a_budget_that_will_not_do_is_said_with_what_would(overrides: list[str], told: str | None) -> None:
    seen = outlook(plan_of(*overrides), look(), RATES)
    assert bool(seen.notes) == (told is not None)
    assert told is None or any(told in note for note in seen.notes), seen.notes
    assert "budget the search ends " in plain(outlook_lines(seen, plan_of(*overrides), 300))


def test_a_program_without_the_hook_has_the_tokens_that_were_measured() -> None:
    space = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}
    plan = plan_of(run__program="tests.programs.toy:Toy", search__space=space)
    assert outlook(plan, look(), None).tokens is None
    measured = outlook(plan, None, replace(RATES, tokens=(2000.0, 3000.0)))
    assert measured.whole_tokens == 2000.0 and measured.tokens is not None


def test_trials_that_a_function_draws_cost_what_the_recipe_does() -> None:
    plan = plan_of("scheduler=none", search__space="tests.tuner.space.functions:good")
    seen = outlook(plan, look(), None)
    assert seen.tokens is not None and seen.tokens.least == seen.tokens.most
    assert seen.tokens.likely == pytest.approx(16 * 16_000)


def finished(storage: Path, name: str, plan: Plan, node: str = platform.node(), **changes: Any) -> None:
    """A search with these settings that has ended, in `storage`."""
    folder = storage / name
    folder.mkdir(parents=True)
    resolved = {**dump_resolved(plan.experiment), **changes}
    (folder / "resolved.json").write_text(json.dumps(resolved))
    tape = searches.finished()
    for event in tape.events:
        if event.event == "setup":
            event.details["node"] = node  # type: ignore[index]
    (folder / "trials.jsonl").write_text("".join(event.to_json() + "\n" for event in tape.events))


def test_the_last_search_of_the_same_on_this_machine_tells_the_time(tmp_path: Path) -> None:
    plan = plan_of(run__storage_path=str(tmp_path))
    assert earlier_rates(plan) is None
    finished(tmp_path, "elsewhere", plan, node="another machine")
    finished(tmp_path, "longer", plan, train={})
    assert earlier_rates(plan) is None
    finished(tmp_path, "same", plan_of("search.num_trials=3", run__storage_path=str(tmp_path)))
    found = earlier_rates(plan)
    assert found is not None and found.source == "the search same in this folder"
    (tmp_path / "same" / "trials.jsonl").write_text("damaged")
    assert earlier_rates(plan) is None


def test_ends_of_the_space_that_do_not_fit_are_named() -> None:
    plan = plan_of()
    needs = {json.dumps(params): plan.memory_of(params) for params in plan.points}
    largest = json.dumps({"effective_batch_size": 8})
    recipe, batch = needs["{}"], needs[largest]
    assert recipe is not None and batch is not None and recipe < batch
    seen = outlook(plan, look(), None, capacity=(recipe + batch) // 2)
    assert {"effective_batch_size": 8} in [corner.params for corner in seen.too_large]
    assert {} not in [corner.params for corner in seen.too_large]
    assert any("too large for a GPU of 0.1 GB here: " in note for note in seen.notes)
    assert seen.to_dict()["too_large"][0]["bytes"] > recipe
    whole = plan.memory_of(plan.heaviest)
    assert whole is not None
    together = outlook(plan, look(), None, capacity=whole - 1).too_large
    assert [corner.params for corner in together] == [plan.heaviest], "each fits alone, all of them do not"
    assert not outlook(plan, look(), None, capacity=whole).too_large


@pytest.mark.parametrize(
    ("steps", "at"), [(100, (0.05, 0.1, 0.2, 1.0)), (20, AT), (8, AT), (None, (0.005, 0.01, 0.02, 1.0))]
)
def test_a_probe_measures_a_trial_three_times_in_its_first_steps(steps: int | None, at: tuple[float, ...]) -> None:
    assert places(steps) == pytest.approx(at)
    assert steps is None or steps < STEPS or places(steps)[len(AT) - 1] * steps == STEPS


def test_what_is_not_known_is_said() -> None:
    plan = plan_of()
    told = plain(outlook_lines(outlook(plan, None, None), plan, 200))
    assert told.startswith("takes  about 3") and "16 whole trials take" in told
    assert "not known on this machine: --probe measures it" in told
    assert isinstance(outlook(plan, None, None).to_dict()["work"]["likely"], float)
    assert isinstance(outlook(plan, None, None), Outlook)
