"""Runs solo trials of the SFT program, and makes engines with the same settings and rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.sft import SFT
from tuner.contract import Assignment, Evaluation, Fault

POINTS = (0.25, 0.5, 1.0)
Make = Callable[..., dict[str, Any]]


def assignment(folder: Path, params: dict[str, Any], seed: int, points: tuple[float, ...] = POINTS) -> Assignment:
    folder.mkdir(parents=True, exist_ok=True)
    return Assignment(0, params, seed, points, str(folder))


class Bench:
    """One preparation, one SFT program with its finished trials, and engines."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.preparation = SFT.prepare(settings, folder / "cache")
        self._program: SFT | None = None
        self._curves: dict[str, list[Evaluation]] = {}

    def solo(self, params: dict[str, Any], seed: int) -> list[Evaluation]:
        """The evaluations of a solo trial."""
        key = json.dumps([params, seed], sort_keys=True)
        if key not in self._curves:
            self._program = self._program or SFT(self.settings, self.preparation)
            self._program.start(assignment(self.folder / f"solo-{len(self._curves)}", params, seed))
            curve: list[Evaluation] = []
            while not curve or not curve[-1].done:
                curve.append(self._program.step())
            self._program.stop()
            self._curves[key] = curve
        return self._curves[key]

    def engine(self, slots: int, **more: Any) -> Any:
        from trainables.packed.engine import Engine

        return Engine(self.settings, self.preparation, slots, **more)


def take(engine: Any, curves: dict[int, list[Evaluation]], limit: int | None = None) -> dict[int, Fault]:
    """Calls `advance` once, adds its evaluations to `curves` and confirms them; gives its faults by slot."""
    faults: dict[int, Fault] = {}
    for slot, outcome in engine.advance(limit):
        if isinstance(outcome, Fault):
            faults[slot] = outcome
        else:
            curves.setdefault(slot, []).append(outcome)
            engine.confirm(slot)
    return faults


def drive(engine: Any, curves: dict[int, list[Evaluation]]) -> dict[int, Fault]:
    """Calls `take` until there is no further evaluation or fault; gives the faults by slot."""
    faults: dict[int, Fault] = {}
    while True:
        before = sum(map(len, curves.values()))
        new = take(engine, curves)
        faults |= new
        if not new and sum(map(len, curves.values())) == before:
            return faults


def assert_same(
    packed: list[Evaluation],
    solo: list[Evaluation],
    tolerance: float = 1e-5,
    moved: Callable[[], list[float]] | None = None,
) -> None:
    """Checks that two curves are equal in every reported number.

    moved: how far rounding alone moves the solo run at each evaluation; asked where a number is not within `tolerance`,
    and that far it may be.
    """
    assert [(e.step, e.max_steps, e.tokens) for e in packed] == [(e.step, e.max_steps, e.tokens) for e in solo]
    apart = [
        max(abs(ours.eval_loss - theirs.eval_loss), abs(ours.train_loss - theirs.train_loss))
        for ours, theirs in zip(packed, solo, strict=True)
    ]
    allowed = [tolerance] * len(apart)
    if moved is not None and max(apart) > tolerance:
        allowed = [max(tolerance, 3 * by) for by in moved()]
    for ours, by, most in zip(packed, apart, allowed, strict=False):
        assert by <= most, f"step {ours.step}: {by:.2e} apart, {most:.2e} allowed"
