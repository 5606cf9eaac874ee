"""One packed trial: its rows, its learning rates, its step, and whether it waits to be confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from trainables import states
from trainables.guards import LearningMonitor
from trainables.heartbeat import Heartbeat
from trainables.packed.optimizer import Update
from trainables.packed.peft_adapters import InitialAdapter
from trainables.packed.rows import AccumulationWindow, FlatRows, Indices, windows
from trainables.progress import AttemptProgress
from trainables.settings import Settings, steps
from tuner.contract import Assignment, Evaluation


class PackedTrial:
    """A trial in a slot. It knows what it needs next; the engine does it, together with what its neighbours need.

    `slot` is its place in the engine, `number` its own number in the search.
    """

    def __init__(
        self,
        slot: int,
        settings: Settings,
        assignment: Assignment,
        initial: InitialAdapter,
        rows: FlatRows,
        began: float,
        stream: torch.Generator,
    ) -> None:
        """rows: the training rows. began: when its set-up began, by `time.monotonic`. stream: the slot's generator, for
        dropout."""
        train = settings.train
        self.slot, self.number = slot, assignment.number
        self.settings, self.assignment, self.initial = settings, assignment, initial
        self.max_steps = steps.max_steps(train, len(rows))
        self.points = frozenset(assignment.evaluation_steps(self.max_steps))
        """The steps after which it is evaluated."""
        self.folder = Path(assignment.folder)
        self.monitor = LearningMonitor({})
        self.rate_at = _rates(settings, self.max_steps)
        """The learning rate of a step, counted from 0."""
        self.step = 0
        """Optimizer steps taken."""
        self.tokens = 0
        """Tokens trained on, padding excluded."""
        self.grad_norm: torch.Tensor | None = None
        """[] float32: the norm of the last step's gradient before clipping; None before the first step."""
        self.failed = False
        """Whether it met a fault; it then stays in its slot until it leaves, and does not train."""
        self.mid_window = False
        """Whether micro-batches of the open accumulation window remain."""
        self.progress = AttemptProgress(began)
        self.heartbeat = Heartbeat(self.folder)
        self.saves = states.SaveSchedule(self.folder, assignment.state_steps(self.max_steps))
        self.stream = stream
        self._rows = rows
        split = steps.split(train.effective_batch_size, train.per_device_train_batch_size)
        self._windows = windows(rows, split.micro, split.accumulation, assignment.seed)
        self._micro_batches: deque[Indices] = deque()
        self._window: AccumulationWindow | None = None
        self._window_start: tuple[int, torch.Tensor | None] = 0, None
        """When the open window began: `tokens`, and with dropout the state of `stream`, [bytes] uint8."""
        self._evaluated = 0
        """The step of the last evaluation; 0 before the first."""
        self._unconfirmed = False
        """Whether that evaluation waits for `confirm`."""

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.max_steps

    def resume(self, evaluation: Evaluation, tokens: int) -> None:
        """Continues an earlier attempt after `evaluation`: takes its step, and skips the rows that it trained on.

        tokens: that the earlier attempt had trained on.
        """
        for _ in range(evaluation.step):
            next(self._windows)
        self.step = self._evaluated = evaluation.step
        self.tokens = tokens
        assert self.assignment.resume is not None
        self.progress.resume(self.assignment.resume, evaluation)
        self._unconfirmed = self.progress.unheard is not None and not evaluation.done

    @property
    def due(self) -> bool:
        """Whether it is to be evaluated: at an evaluation point, and the evaluation before it is confirmed."""
        return not self.failed and self._at_point and not self._unconfirmed

    @property
    def _at_point(self) -> bool:
        """Whether its step is an evaluation point that is not yet evaluated."""
        return self.step in self.points and self.step != self._evaluated

    def may_train(self, run_ahead: int) -> bool:
        """Whether the next micro-batch may run: with an unconfirmed evaluation, for `run_ahead` steps at most."""
        if self.failed or self.done or self._at_point:
            return False
        return not self._unconfirmed or self.step - self._evaluated < run_ahead

    @property
    def is_known(self) -> bool:
        """Whether the driver knows the last evaluation already, from an earlier attempt."""
        return self.progress.knows(self._evaluated)

    def confirm(self) -> None:
        """Lets the trial go on after its last evaluation."""
        self._unconfirmed = False

    def next_batch(self) -> tuple[Indices, int]:
        """The next micro-batch: indices [rows] int64 of its rows, and the targets of its window, which divide the
        loss."""
        if not self._micro_batches:
            self._window = next(self._windows)
            self._micro_batches.extend(self._window.batches)
            if self._window.opens_epoch:
                self.draw_loader_seed()
            self._window_start = self.tokens, self.stream.get_state() if self.settings.train.lora_dropout else None
        assert self._window is not None
        batch = self._micro_batches.popleft()
        self.tokens += self._rows.tokens(batch)
        self.mid_window = bool(self._micro_batches)
        return batch, max(1, self._window.targets)

    def rewind(self) -> None:
        """Goes back to the beginning of the open window, with the dropout generator: its first micro-batch is next."""
        assert self._window is not None
        self._micro_batches = deque(self._window.batches)
        self.tokens, state = self._window_start
        if state is not None:
            self.stream.set_state(state)
        self.mid_window = False

    def draw_loader_seed(self) -> None:
        """Draws what a solo run's data loader draws when it begins, so that the same dropout masks follow."""
        if self.stream.device.type == "cpu":
            torch.empty((), dtype=torch.int64).random_(generator=self.stream)

    def update(self) -> Update:
        """The parameters of the optimizer step that a full window leads to."""
        train = self.settings.train
        rate = self.rate_at(self.step)
        self.monitor.before_step(rate)
        return Update(self.slot, rate, train.weight_decay, train.max_grad_norm)

    def evaluated(self, loss: float | None) -> bool:
        """Notes that this step is evaluated. Whether the adapter is to be kept: `loss` is the trial's best, or the
        search goes by what is measured at the end."""
        self._evaluated = self.step
        self._unconfirmed = not self.done
        return self.progress.improves(loss) or (self.done and self.settings.metrics.objective is not None)

    def last_grad_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping. On a GPU it waits for that step."""
        return None if self.grad_norm is None else self.grad_norm.item()

    @property
    def steps_since_evaluation(self) -> int:
        """Optimizer steps since the last evaluation."""
        return self.step - self._evaluated


def _rates(settings: Settings, max_steps: int) -> Callable[[int], float]:
    """The function from a step, counted from 0, to its learning rate, as transformers' scheduler computes it."""
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
