"""One packed trial: its rows, its schedule, where it stands, and what it is waiting for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from trainables import states
from trainables.guards import Stillness
from trainables.heartbeat import Sign
from trainables.packed.optimizer import Update
from trainables.packed.peft_adapters import Made
from trainables.packed.rows import Indices, Rows, Window, windows
from trainables.progress import AttemptProgress
from trainables.settings import Settings, steps
from tuner.contract import Assignment, Evaluation


class Slot:
    """A trial in a slot. It knows what it needs next; the engine does it, together with the neighbours' needs."""

    def __init__(
        self, number: int, settings: Settings, assignment: Assignment, made: Made, rows: Rows, began: float,
        stream: torch.Generator,
    ) -> None:  # fmt: skip
        train = settings.train
        self.number, self.settings, self.assignment, self.made = number, settings, assignment, made
        self.max_steps = steps.max_steps(train, len(rows))
        self.points = frozenset(assignment.evaluation_steps(self.max_steps))
        self.folder = Path(assignment.folder)
        self.stillness = Stillness({})
        self.rate_at = _rates(settings, self.max_steps)
        self.step = 0
        self.tokens = 0
        self.grad_norm: torch.Tensor | None = None
        self.failed = False
        self.mid_window = False
        self._rows = rows
        shape = steps.batch(train.effective_batch_size, train.per_device_train_batch_size)
        self._windows = windows(rows, shape.micro, shape.accumulation, assignment.seed)
        self._waiting: deque[Indices] = deque()
        self._window: Window | None = None
        self._before: tuple[int, torch.Tensor | None] = 0, None
        self._evaluated = 0
        self._unconfirmed = False
        self.sign = Sign(self.folder)
        self.pace = states.Pace(self.folder)
        self.progress = AttemptProgress(began)
        self.stream = stream
        """Dropout's random numbers."""

    @property
    def done(self) -> bool:
        """All steps taken."""
        return self.step >= self.max_steps

    def go_on(self, evaluation: Evaluation, tokens: int) -> None:
        """Stands where an earlier attempt stood after `evaluation`: skips the rows that it has trained on."""
        for _ in range(evaluation.step):
            next(self._windows)
        self.step = self._evaluated = evaluation.step
        self.tokens = tokens
        assert self.assignment.resume is not None
        self.progress.resume(self.assignment.resume, evaluation)
        self._unconfirmed = self.progress.unheard is not None and not evaluation.done

    @property
    def due(self) -> bool:
        """At an evaluation point that is not measured yet, with the word on the one before come."""
        return not self.failed and self._at_point and not self._unconfirmed

    @property
    def _at_point(self) -> bool:
        return self.step in self.points and self.step != self._evaluated

    def may_train(self, run_ahead: int) -> bool:
        """Whether the next micro-batch may be run: past an evaluation without a word, `run_ahead` steps may."""
        if self.failed or self.done or self._at_point:
            return False
        return not self._unconfirmed or self.step - self._evaluated < run_ahead

    @property
    def heard_of(self) -> bool:
        """Whether the driver knows of this evaluation from an earlier attempt."""
        return self.progress.knows(self._evaluated)

    def confirm(self) -> None:
        """The word on the last evaluation: go on."""
        self._unconfirmed = False

    def next_batch(self) -> tuple[Indices, int]:
        """The rows of the next micro-batch, and the targets of its whole window, by which its loss is divided."""
        if not self._waiting:
            self._window = next(self._windows)
            self._waiting.extend(self._window.batches)
            if self._window.opens_epoch:
                self.draw()
            self._before = self.tokens, self.stream.get_state() if self.settings.train.lora_dropout else None
        assert self._window is not None
        batch = self._waiting.popleft()
        self.tokens += self._rows.tokens(batch)
        self.mid_window = bool(self._waiting)
        return batch, max(1, self._window.targets)

    def rewind(self) -> None:
        """Back to where the window began, dropout's stream too: it is taken again from its first micro-batch."""
        assert self._window is not None
        self._waiting = deque(self._window.batches)
        self.tokens, state = self._before
        if state is not None:
            self.stream.set_state(state)
        self.mid_window = False

    def draw(self) -> None:
        """What a solo run's loaders draw whenever one begins; after it come the same dropout masks."""
        if self.stream.device.type == "cpu":
            torch.empty((), dtype=torch.int64).random_(generator=self.stream)

    def update(self) -> Update:
        """The optimizer step that a full window asks for."""
        train = self.settings.train
        rate = self.rate_at(self.step)
        self.stillness.stepping(rate)
        return Update(self.number, rate, train.weight_decay, train.max_grad_norm)

    def evaluated(self, loss: float | None) -> bool:
        """Notes that this step is measured. True where the loss is the trial's best."""
        self._evaluated = self.step
        self._unconfirmed = not self.done
        return self.progress.improves(loss)

    def last_norm(self) -> float | None:
        """Norm of the gradient of the last step, before clipping."""
        return None if self.grad_norm is None else self.grad_norm.item()

    @property
    def since_evaluation(self) -> int:
        """Optimizer steps since the evaluation before."""
        return self.step - self._evaluated


def _rates(settings: Settings, max_steps: int) -> Callable[[int], float]:
    """The learning rate of every step, counted from 0, as transformers schedules it."""
    train = settings.train
    parameter = torch.nn.Parameter(torch.zeros(()))
    scheduler: Any = get_scheduler(
        train.lr_scheduler_type,
        optimizer=torch.optim.SGD([parameter], lr=train.learning_rate),
        num_warmup_steps=steps.warmup_steps(train.warmup_ratio, max_steps),
        num_training_steps=max_steps,
    )
    (share,) = scheduler.lr_lambdas
    return lambda step: train.learning_rate * share(step)
