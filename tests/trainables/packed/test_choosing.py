"""How many trials an engine takes, and that measuring it changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainables.packed.bench import Bench, assert_same, assignment, drive
from trainables.packed import choosing
from tuner.contract import Evaluation


@pytest.mark.parametrize("measure", [False, True])
def test_the_trials_after_it_are_what_they_were(bench: Bench, tmp_path: Path, measure: bool) -> None:
    engine = bench.engine(4)
    choice = engine.choose(4, {"lora_r": 16}, measure=measure)
    assert choice.fit == 4 and 1 <= choice.slots <= 4 and len(engine.free) == choice.slots
    assert bool(choice.speeds) is measure
    engine.join(0, assignment(tmp_path, {"max_steps": 6}, seed=3))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    assert_same(curves[0], bench.solo({"max_steps": 6}, seed=3))


@pytest.mark.parametrize(
    ("seconds", "expected", "tried"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, 8, [1, 2, 4, 8]),  # a step costs the same however full it is
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, 1, [1, 2]),  # nothing is gained
        ({1: 1.0, 2: 1.0, 4: 1.9, 8: 3.8}, 2, [1, 2, 4]),  # 5% more are not worth two more at once
        ({1: 1.0, 2: 1.0, 4: 1.5, 6: 1.6}, 6, [1, 2, 4, 6]),
    ],
)
def test_as_many_as_pay(
    seconds: dict[int, float], expected: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = max(seconds)
    monkeypatch.setattr(choosing, "_fitting", lambda *_: limit)
    monkeypatch.setattr(choosing, "_seconds_a_step", lambda _engine, slots, _params, **_: seconds[slots])
    engine: Any = SimpleNamespace(uses_graphs=False)
    choice = choosing.choose(engine, 32, {}, measure=True)
    assert choice.slots == expected and list(choice.speeds) == tried


@pytest.mark.parametrize(
    ("peaks", "wanted", "fit"), [((20e9, 32e9), 64, 9), ((20e9, 32e9), 4, 4), ((120e9, 220e9), 8, 1)]
)
def test_as_many_as_fit(peaks: tuple[float, float], wanted: int, fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 140 GB on which one and two trials took so much."""
    assert choosing.room_for(wanted, peaks, 140e9, beside=False) == fit
    assert choosing.room_for(wanted, peaks, 140e9, beside=True) <= fit
