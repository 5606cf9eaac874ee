"""A packed trial that is cut off and continues in a slot of another engine has the curve of one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packed.bench import Bench, assert_same, assignment, drive, take
from tuner.contract import STATE, Evaluation, Resume

pytestmark = pytest.mark.usefixtures("every_evaluation")

PARAMS: dict[str, Any] = {"max_steps": 12, "lora_dropout": 0.1, "effective_batch_size": 8}


def cut(bench: Bench, folder: Path, evaluations: int) -> list[Evaluation]:
    """The first evaluations of a trial whose engine is dropped two engine steps later."""
    engine = bench.engine(2)
    engine.join(1, assignment(folder, PARAMS, seed=4))
    curves: dict[int, list[Evaluation]] = {}
    while len(curves.get(1, [])) < evaluations:
        take(engine, curves)
    take(engine, curves, limit=2)
    return curves[1]


@pytest.mark.parametrize("known", [1, 2])
def test_it_goes_on_where_it_stood(bench: Bench, tmp_path: Path, known: int) -> None:
    """Of the two evaluations that its state knows, the driver has heard of so many. What it has not is told again, what
    it has is not; beside a neighbour, in another slot."""
    first = cut(bench, tmp_path / "first", 2)
    heard = first[:known]
    best = min((e.eval_loss for e in heard if e.eval_loss is not None), default=None)
    resume = Resume(heard[-1].step if heard else 0, best, (str(tmp_path / "first"),))
    engine = bench.engine(3)
    engine.join(1, assignment(tmp_path / "neighbour", {"max_steps": 9}, seed=1))
    setup = engine.join(0, replace(assignment(tmp_path / "second", PARAMS, seed=4), resume=resume, attempt=2))
    assert setup.resumed_step == first[1].step and not setup.note
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    solo = bench.solo(PARAMS, seed=4)
    told = curves[0]
    begins = first[1].step if known == 2 else first[0].step
    assert [e.step for e in told] == [e.step for e in solo if e.step > begins]
    assert_same(told, solo[-len(told) :])
    assert_same(curves[1], bench.solo({"max_steps": 9}, seed=1))


def test_what_the_driver_knows_better_is_not_told_again(bench: Bench, tmp_path: Path) -> None:
    """Its last state was torn: it goes on from the one before, and passes in silence what is known."""
    first = cut(bench, tmp_path / "first", 2)
    newest = tmp_path / "first" / STATE / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    best = min(e.eval_loss for e in first if e.eval_loss is not None)
    engine = bench.engine(1)
    resume = Resume(first[-1].step, best, (str(tmp_path / "first"),))
    setup = engine.join(0, replace(assignment(tmp_path / "second", PARAMS, seed=4), resume=resume, attempt=2))
    assert setup.resumed_step == first[0].step and "is damaged" in setup.note
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    solo = bench.solo(PARAMS, seed=4)
    assert [e.step for e in curves[0]] == [e.step for e in solo[2:]]
    assert_same(curves[0], solo[2:])


def test_another_trials_state_is_not_gone_on_from(bench: Bench, tmp_path: Path) -> None:
    cut(bench, tmp_path / "first", 1)
    engine = bench.engine(1)
    other = replace(assignment(tmp_path / "second", {**PARAMS, "lora_r": 2}, seed=4), attempt=2,
                    resume=Resume(3, 5.0, (str(tmp_path / "first"),)))  # fmt: skip
    setup = engine.join(0, other)
    assert setup.resumed_step == 0 and "another trial's" in setup.note
