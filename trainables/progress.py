"""How far a trial has come over all of its attempts, solo or packed. Importing this module costs no torch."""

from __future__ import annotations

import math
import time

from tuner.contract import Evaluation, Resume


class AttemptProgress:
    """What an attempt at a trial knows of the attempts before it, and the trial's best loss."""

    def __init__(self, began: float) -> None:
        """began: when the attempt began to be set up, by `time.monotonic`."""
        self.known = 0
        """The last step that the driver has heard of from an earlier attempt that this one continues."""
        self.unheard: Evaluation | None = None
        """The last evaluation of that attempt, if the driver has not heard of it."""
        self._best = math.inf
        self._began = began

    def resume(self, resume: Resume, evaluation: Evaluation) -> None:
        """Continues an earlier attempt from its state. evaluation: the one that the state was saved with."""
        self.known = resume.step
        losses = (resume.best_eval_loss, evaluation.eval_loss)
        self._best = min((loss for loss in losses if loss is not None and not math.isnan(loss)), default=math.inf)
        self._began -= evaluation.seconds
        if evaluation.step > resume.step or evaluation.done:
            self.unheard = evaluation

    def take_unheard(self) -> Evaluation | None:
        """The evaluation that the driver has not heard of; None where there is none, and from the second call on."""
        evaluation, self.unheard = self.unheard, None
        return evaluation

    def knows(self, step: int) -> bool:
        """Whether the driver has heard of the evaluation at `step`."""
        return step <= self.known

    def improves(self, loss: float | None) -> bool:
        """Whether `loss` is the trial's best so far; it is remembered if so. A NaN never is."""
        if loss is None or not loss < self._best:
            return False
        self._best = loss
        return True

    @property
    def seconds(self) -> float:
        """Seconds of all attempts, set-up included."""
        return time.monotonic() - self._began
