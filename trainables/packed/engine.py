"""The engine of packed trials: they join and leave it, and the rows of all of them pass through the base together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from trainables import runtime, states
from trainables.guards import SAMPLED, LearningMonitor, Sample, check_rows
from trainables.models import base
from trainables.models.resident import Resident
from trainables.out_of_memory import out_of_memory_faults
from trainables.packed import (
    adapted_layers,
    answering,
    bases,
    choosing,
    optimizer,
    peft_adapters,
    probe,
    trial_files,
    trial_state,
)
from trainables.packed.batches import collate
from trainables.packed.choosing import SlotChoice
from trainables.packed.chunking import Chunking, Chunks
from trainables.packed.copies import Copies
from trainables.packed.evaluating import Evaluator
from trainables.packed.layer_context import Dropout
from trainables.packed.packed_model import PackedModel
from trainables.packed.packed_trial import PackedTrial
from trainables.packed.packing_rules import packs
from trainables.packed.peft_adapters import InitialAdapter
from trainables.packed.rows import FlatRows
from trainables.packed.stack import Stack
from trainables.packed.writing import Writer
from trainables.settings import Settings, with_params
from tuner.contract import Assignment, Evaluation, Fault, Preparation, Reason, Setup, Unpackable

Outcome = tuple[int, Evaluation | Fault]
"""A slot, and its trial's evaluation or the fault that the trial met."""

_WRITERS = 4
"""Threads that write beside a GPU. Beside a CPU there is one: the steps need the cores."""

_ALONE = "run it unpacked: set resources.trials_per_gpu to 1"


class Engine:
    """One resident base, and slots for trials on it.

    After an evaluation a trial trains on for `run_ahead` optimizer steps, and then waits for `confirm`. If it is
    stopped instead, those steps are dropped with its slot and never reported. A trial that failed stays in its slot
    until `leave`.
    """

    def __init__(
        self,
        settings: Settings | Mapping[str, Any],
        preparation: Preparation,
        slots: int,
        run_ahead: int = 8,
        *,
        capture: bool = True,
    ) -> None:
        """run_ahead: optimizer steps that a trial may take before its last evaluation is confirmed. capture: on a GPU,
        captures steps as CUDA graphs where that makes them faster; see cuda_graphs.py.

        Raises Unpackable where trials cannot be packed on this base, and Fault where none can be trained.
        """
        self._settings = runtime.validated(settings)
        inputs = runtime.open_inputs(self._settings, preparation)
        check_rows("training", inputs.train)
        check_rows("validation", inputs.validation)
        self.rows, validation = FlatRows.of(inputs.train), FlatRows.of(inputs.validation)
        self._run_ahead = run_ahead
        tokenizer = inputs.tokenizer
        self._padding = int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        self._model = runtime.load_base(self._settings, preparation)
        self.device = base.device()
        bases.check(self._model)
        reference = probe.SoloReference(self._model, self.rows, longest=max(self.rows.longest, validation.longest))
        self.packed = PackedModel(self._model, capture=capture)
        self.graphs = self.packed.graphs
        self._context, self._layers = self.packed.context, self.packed.layers
        self._resident = Resident(self._model)
        self._initializer = peft_adapters.AdapterInitializer(self._resident)
        self._refused: dict[str, str | None] = {}
        """By target modules: why trials with them cannot be packed; None where they can."""
        self._copies = Copies(self.device)
        self._writer = Writer(_WRITERS if self.device.type == "cuda" else 1)
        self.chunking = Chunking(recomputes=self.packed.recomputes)
        """The size of training passes."""
        batch_size = self._settings.train.per_device_eval_batch_size
        self.evaluator = Evaluator(self.packed, validation, batch_size, self._padding)
        self._measurer = runtime.measurer(self._settings, preparation, inputs)
        self._allocate(probe.SLOTS)
        probe.require_independent(self.packed, self.stack, reference)
        self._allocate(slots)

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> SlotChoice:
        """Chooses how many trials to take, `wanted` at most, and makes that many slots; see choosing.py.

        To be called before the first trial joins. Raises Fault where a trial cannot be trained.
        """
        self._allocate(wanted)
        choice = choosing.choose(self, wanted, heaviest, measure=measure, beside=beside)
        self._allocate(choice.slots)
        return choice

    def join(self, slot: int, assignment: Assignment) -> Setup:
        """Brings a trial into a slot, between two steps of its neighbours; a trial that is there leaves.

        Raises Unpackable where it can be trained only unpacked, and Fault where it cannot be trained.
        """
        began = time.monotonic()
        self.leave(slot)
        settings = with_params(self._settings, assignment.params)
        memory = torch.cuda.memory_allocated() if self.device.type == "cuda" else None
        with out_of_memory_faults(), runtime.target_faults(settings, self._settings):
            initial = self._initial_adapter(settings, assignment.seed)
            if settings.train.lora_r > self.stack.rank:
                self.graphs.clear()  # before the larger buffers need memory
                self.stack.grow(settings.train.lora_r)
                adapted_layers.bind(self._layers, self.stack)
            self.stack.put(slot, initial.weights, settings.train.lora_r)
        for name, layer in self._layers.items():
            layer.rescale(slot, initial.scales.get(name, 0.0))
        self._losses[slot] = self._window_losses[slot] = 0.0
        stream = self._streams[slot].manual_seed(assignment.seed)
        trial = PackedTrial(slot, settings, assignment, initial, self.rows, began, stream)
        if settings.train.lora_dropout > 0:
            self._context.dropouts[slot] = Dropout(settings.train.lora_dropout, trial.stream)
        found, notes = trial_state.find(trial)
        if found is not None:
            trial_state.resume(trial, self.stack, found)
        trial.monitor = LearningMonitor(self._sample(trial))
        self.trials[slot] = trial
        return runtime.setup(
            settings, max_steps=trial.max_steps, rows=len(self.rows), count=initial.count,
            lora_alpha=initial.config.lora_alpha, adapted_modules=len(initial.weights), memory_before=memory,
            parts=initial.parts, base_class=type(self._model).__name__, resumed_step=trial.step,
            note=states.resume_note(trial.number, trial.step, notes),
        )  # fmt: skip

    def refuses(self, params: Mapping[str, Any]) -> str | None:
        """Why a trial with these parameters cannot be packed on this base; None where it can.

        Raises Fault where it cannot be trained at all.
        """
        settings = with_params(self._settings, params)
        if (reason := packs(settings)) is not None:
            return reason
        key = repr(settings.train.target_modules)  # all else is the same for every trial
        if key not in self._refused:
            try:
                with out_of_memory_faults():
                    self._initial_adapter(settings, seed=0)
                self._refused[key] = None
            except Unpackable as why:
                self._refused[key] = why.message
        return self._refused[key]

    def _initial_adapter(self, settings: Settings, seed: int) -> InitialAdapter:
        """A trial's adapter before its first step. Raises Unpackable where a part of it is on no linear layer."""
        if (reason := packs(settings)) is not None:
            raise Unpackable(Reason.CONFIG, reason, _ALONE)
        initial = self._initializer.initialize(settings, seed)
        if outside := sorted(set(initial.weights) - set(self._layers)):
            what = (
                f"the adapter on {outside[0]} cannot be packed: it is no linear layer, and holds several (experts, say)"
            )
            raise Unpackable(Reason.CONFIG, what, _ALONE)
        return initial

    def _allocate(self, slots: int) -> None:
        """Makes `slots` empty slots and buffers for their adapters, in place of those before."""
        dtype = peft_adapters.state_dtype(self._model)
        compute = torch.bfloat16 if self.packed.autocast else dtype
        shapes = {name: layer.shape for name, layer in self._layers.items()}
        self.graphs.clear()
        self._context.dropouts.clear()
        self.stack = Stack(shapes, slots, dtype, compute, self.device)
        for layer in self._layers.values():
            layer.allocate(slots)
        self.trials: list[PackedTrial | None] = [None] * slots
        """By slot; None where the slot is empty."""
        self._losses = torch.zeros(slots, device=self.device)
        """[slots] float32: summed losses of the windows since each slot's last evaluation."""
        self._window_losses = torch.zeros(slots, device=self.device)
        """[slots] float32: summed losses of the micro-batches of each slot's open window."""
        # One a slot and not one a trial: a captured step draws masks from the generator that it was captured with
        self._streams = [torch.Generator(self.device) for _ in range(slots)]

    def leave(self, slot: int) -> None:
        """Empties a slot, at whatever step its trial is; the neighbours are not changed. An empty slot stays empty."""
        trial = self.trials[slot]
        if trial is None:
            return
        self._writer.drop(trial)
        self.trials[slot] = None
        self._context.dropouts.pop(slot, None)
        for layer in self._layers.values():
            layer.rescale(slot, 0.0)
        self.stack.clear(slot)

    def confirm(self, slot: int) -> None:
        """Lets the slot's trial go on after its last evaluation. Raises LookupError for an empty slot."""
        self._trial_in(slot).confirm()

    def advance(self, limit: int | None = None) -> Sequence[Outcome]:
        """Trains until the files of an evaluation are written, a trial fails, or every trial waits for `confirm`; for
        `limit` engine steps at most. Gives the evaluations and faults, and nothing where no trial has one.

        An engine step is one micro-batch of every trial that may train. All trials that are due at the same step are
        evaluated together, and train on while their files are written. Raises Fault where all of them failed.
        """
        with out_of_memory_faults():
            for step in itertools.count():
                trials = [trial for trial in self.trials if trial is not None]
                if unheard := [trial for trial in trials if trial.progress.unheard is not None]:
                    return [(t.slot, found) for t in unheard if (found := t.progress.take_unheard()) is not None]
                if written := self._writer.written():
                    return written
                due = [trial for trial in trials if trial.due]
                if due and (failed := self._evaluate(due)):
                    return failed
                active = [trial for trial in trials if trial.may_train(self._run_ahead)]
                if step == limit:
                    return []
                if not active:
                    return self._writer.written(waits=True)
                if failed := self._step(active):
                    return failed
        raise AssertionError("unreachable")

    @property
    def uses_graphs(self) -> bool:
        """Whether steps are captured and replayed."""
        return self.graphs.enabled

    def strict_memory(self) -> AbstractContextManager[None]:
        """Within it a step that runs out of memory raises, instead of going on in smaller passes."""
        return self.chunking.strict()

    def without_graphs(self) -> AbstractContextManager[None]:
        """Within it no step is captured or replayed."""
        return self.graphs.disabled()

    @property
    def free(self) -> list[int]:
        """The empty slots, in ascending order."""
        return [slot for slot, trial in enumerate(self.trials) if trial is None]

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        trials = [trial for trial in self.trials if trial is not None]
        moves = any(trial.progress.unheard or trial.due or trial.may_train(self._run_ahead) for trial in trials)
        return moves or bool(self._writer)

    def checksum(self) -> str:
        """SHA-256 over the base's weights: equal as long as no trial changed it."""
        return self._resident.checksum()

    def _trial_in(self, slot: int) -> PackedTrial:
        trial = self.trials[slot]
        if trial is None:
            raise LookupError(f"slot {slot} is empty")
        return trial

    def _step(self, active: Sequence[PackedTrial]) -> list[Outcome]:
        """Takes a micro-batch of each trial, and the optimizer steps of full windows. Gives the trials that failed."""
        parts, divisors = [], []
        for trial in active:
            trial.heartbeat.beat()
            indices, targets = trial.next_batch()
            parts.append((trial.slot, indices))
            divisors.append(targets)
        self._model.train()
        if short := self.chunking.run(parts, self.rows, partial(self._forward_backward, divisors)):
            return self._after_out_of_memory(short, active)
        full = [trial for trial in active if not trial.mid_window]
        if not full:
            return []
        slots = torch.tensor([trial.slot for trial in full], device=self.device)
        self._losses.index_add_(0, slots, self._window_losses.index_select(0, slots))
        self._window_losses.index_fill_(0, slots, 0.0)
        norms = optimizer.apply(self.stack, [trial.update() for trial in full])
        failed: list[Outcome] = []
        for trial, norm in zip(full, norms, strict=True):
            trial.step += 1
            trial.grad_norm = norm
            with _failing(trial, failed):
                trial.monitor.after_step(partial(self._sample, trial), last=trial.done)
        return failed

    def _forward_backward(self, divisors: Sequence[int], chunks: Chunks) -> None:
        """Runs one pass, forward and backward: adds to the gradients and to the losses of the windows.

        divisors: by part, the targets of its window. chunks: the rows of the pass.
        """
        tokens = sum(self.rows.tokens(chunk.rows) for chunk in chunks)
        recompute = self.chunking.recompute
        buckets = None if recompute else self.graphs.buckets(tokens)
        batch = collate([(chunk.slot, chunk.rows) for chunk in chunks], self.rows, self._padding, self.device, buckets)
        by = torch.tensor([divisors[chunk.part] for chunk in chunks]).to(self.device, non_blocking=True)
        recomputing = self.packed.recomputing() if recompute else nullcontext()
        with self.packed.shown(batch, training=True), recomputing:
            losses = self.packed.losses(batch, self.packed.backbone if recompute else self.graphs.hidden) / by
            # A loss that is not finite changes no other's gradient: the sum's gradient is 1 for each loss
            losses.sum().backward()
        slots = torch.tensor([chunk.slot for chunk in chunks], device=self.device)
        self._window_losses.index_add_(0, slots, losses.detach())

    def _after_out_of_memory(self, short: Chunks, active: Sequence[PackedTrial]) -> list[Outcome]:
        """Takes all trials back to the beginning of their windows, and makes passes smaller unless graphs held memory,
        which are dropped. Where passes cannot be smaller, the trial whose row does not fit fails.

        short: the pass that ran out of memory. active: the trials that had rows in this step. Gives what failed.
        """
        captured = self.graphs.holds_memory
        self.graphs.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        for trial in active:
            trial.rewind()
            self.stack.grads[trial.slot].zero_()
            self._window_losses[trial.slot] = 0.0
        if captured or self.chunking.shrink(short, self.rows):
            return []
        trial = self._trial_in(short[0].slot)
        trial.failed = True
        length = self.rows.tokens(short[0].rows)
        fault = Fault(Reason.OUT_OF_MEMORY, f"out of memory at a single row of {length} tokens",
                      "lower data.max_length", runtime.device_name())  # fmt: skip
        return [(trial.slot, fault)]

    def _evaluate(self, due: Sequence[PackedTrial]) -> list[Outcome]:
        """Evaluates trials, and queues the jobs that write their files. Gives the trials that failed."""
        sums = self._losses.tolist()
        self._model.eval()
        for trial in due:
            trial.draw_loader_seed()
        losses = self.evaluator.losses([trial.slot for trial in due])
        measured = answering.measured(self.packed, self._measurer, due, self._padding, self.trials)
        failed: list[Outcome] = []
        for trial, loss in zip(due, losses, strict=True):
            with _failing(trial, failed):
                effect = partial(self.evaluator.effect, trial.slot)
                trial.monitor.after_evaluation(loss, self._sample(trial), effect, trial.last_grad_norm)
                evaluation = self._evaluation(trial, loss, sums[trial.slot], measured.get(trial.slot))
                better = trial.evaluated(loss)
                if trial.is_known:
                    trial.confirm()
                else:
                    job = trial_files.job(trial, self.stack, self._copies, self._model, evaluation, better=better)
                    self._writer.write(trial, job)
            self._losses[trial.slot] = 0.0
        return failed

    def _evaluation(
        self, trial: PackedTrial, loss: float | None, losses: float, metrics: Mapping[str, float | None] | None
    ) -> Evaluation:
        """loss: the validation loss. losses: the summed losses of the windows since the evaluation before. metrics: of
        answers."""
        return Evaluation(
            step=trial.step,
            max_steps=trial.max_steps,
            eval_loss=loss,
            metrics=metrics,
            tokens=trial.tokens,
            train_loss=losses / trial.steps_since_evaluation,
            seconds=trial.progress.seconds,
            memory=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None,
        )

    def _sample(self, trial: PackedTrial) -> Sample:
        # A tensor for each part: a monitor compares each tensor of a sample by itself, a kernel and a transfer each
        return {part: self.stack.sample(trial.slot, names, SAMPLED) for part, names in trial.initial.modules_of.items()}


@contextmanager
def _failing(trial: PackedTrial, outcomes: list[Outcome]) -> Iterator[None]:
    """Within it a fault fails this trial alone, and is added to `outcomes`."""
    try:
        yield
    except Fault as fault:
        trial.failed = True
        outcomes.append((trial.slot, fault))
