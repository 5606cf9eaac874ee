"""Toys that measure other metrics than a loss."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from tests.programs.toy import Toy
from tuner.contract import EVAL_LOSS, Evaluation, Objective

ACCURACY = Objective("accuracy", "accuracy of the answers", "maximize", "accuracy")
LENGTH = Objective("answer_length", "answer length")


class Rising(Toy):
    """Reports a metric that rises instead of `eval_loss`: 0.75 at the optimum, less the higher the toy's loss is."""

    OBJECTIVES: ClassVar[tuple[Objective, ...]] = (ACCURACY,)

    def step(self) -> Evaluation:
        evaluation = super().step()
        return replace(evaluation, metrics=self.measured(evaluation.step, evaluation.eval_loss))

    def measured(self, step: int, loss: float | None) -> dict[str, float | None]:
        return {"accuracy": None if loss is None else 1 - loss / 8}


class TwoNumbers(Rising):
    """Reports a second metric beside the first: an answer length, which grows with the steps and is missing up to step
    3."""

    OBJECTIVES: ClassVar[tuple[Objective, ...]] = (ACCURACY, LENGTH)

    def measured(self, step: int, loss: float | None) -> dict[str, float | None]:
        length = 40.0 + step if step > 3 else None
        return {**super().measured(step, loss), "answer_length": length, "rows": 100.0}


QUALITY = Objective("quality", "quality of the answers", "maximize", measured="end")


class AtTheEnd(Toy):
    """Reports a quality at its end, which is the higher the worse the loss is."""

    OBJECTIVES: ClassVar[tuple[Objective, ...]] = (QUALITY, EVAL_LOSS)

    def step(self) -> Evaluation:
        evaluation = super().step()
        if evaluation.done and evaluation.eval_loss is not None:
            return replace(evaluation, metrics={**evaluation.metrics, "quality": evaluation.eval_loss * 10})
        return evaluation
