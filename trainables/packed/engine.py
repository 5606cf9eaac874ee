"""The loop of a pack: trials join and leave, and the rows of all of them run through the base together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy
import torch

from trainables import runtime, states
from trainables.guards import SAMPLED, Stillness, check_rows
from trainables.models import base
from trainables.models.resident import Resident
from trainables.out_of_memory import out_of_memory_faults
from trainables.packed import adapted_layers, bases, choosing, evaluating, optimizer, peft_adapters, probe, trial_state
from trainables.packed.batches import Part, collate
from trainables.packed.choosing import Choice
from trainables.packed.chunking import Pieces, Room
from trainables.packed.copies import Copies
from trainables.packed.evaluating import evaluate
from trainables.packed.layer_context import Dropout
from trainables.packed.packed_model import Passes
from trainables.packed.packed_trial import Slot
from trainables.packed.packing_rules import packs
from trainables.packed.peft_adapters import Made
from trainables.packed.rows import Rows
from trainables.packed.stack import Stack
from trainables.packed.writing import Job, Writer
from trainables.settings import Settings, with_params
from tuner.contract import Assignment, Evaluation, Fault, Preparation, Reason, Setup, Unpackable

Outcome = tuple[int, Evaluation | Fault]
"""A slot, and its measurement or the reason why it cannot go on."""

_WRITERS = 4
"""Threads that write beside a GPU. Beside a CPU it is one: the steps want the cores."""

_ALONE = "run it unpacked: set resources.trials_per_gpu to 1"


class Engine:
    """One resident base and `slots` places for trials on it.

    A slot trains on after an evaluation until `confirm`, at most `run_ahead` optimizer steps; what it did past a stop
    is dropped with the slot and never reported. A slot that failed is held until `leave`. record: on a GPU, steps are
    recorded and replayed where that pays, see replays.py.
    """

    def __init__(
        self, settings: Settings | Mapping[str, Any], preparation: Preparation, slots: int, run_ahead: int = 8, *,
        record: bool = True,
    ) -> None:  # fmt: skip
        self._settings = runtime.validated(settings)
        inputs = runtime.open_inputs(self._settings, preparation)
        check_rows("training", inputs.train)
        check_rows("validation", inputs.validation)
        self._train, self._validation = Rows.of(inputs.train), Rows.of(inputs.validation)
        self._run_ahead = run_ahead
        tokenizer = inputs.tokenizer
        self._pad = int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        self._model = runtime.load_base(self._settings, preparation)
        self.device = base.device()
        bases.check(self._model)
        alone = probe.Alone(self._model, self._train, longest=max(self._train.longest, self._validation.longest))
        self._passes = Passes(self._model, record=record)
        self._board, self._replays, self._sites = self._passes.board, self._passes.replays, self._passes.sites
        self._resident = Resident(self._model)
        self._maker = peft_adapters.Maker(self._resident)
        self._refused: dict[str, str | None] = {}
        self._copies = Copies(self.device)
        self._writer = Writer(_WRITERS if self.device.type == "cuda" else 1)
        self._training = Room(recomputes=self._passes.recomputes)
        self._measuring = Room(evaluating.TOKENS.get(self.device.type, 4096))
        self._make_room(probe.SLOTS)
        probe.require_independent(self._passes, self._stack, alone)
        self._make_room(slots)

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> Choice:
        """How many trials to take, of `wanted` at most; see choosing.py. Before the first one joins."""
        self._make_room(wanted)
        choice = choosing.choose(self, wanted, heaviest, measure=measure, beside=beside)
        self._make_room(choice.slots)
        return choice

    def join(self, slot: int, assignment: Assignment) -> Setup:
        """Brings a trial into a slot, between two steps of its neighbours. Whoever was there leaves."""
        began = time.monotonic()
        self.leave(slot)
        settings = with_params(self._settings, assignment.params)
        memory = torch.cuda.memory_allocated() if self.device.type == "cuda" else None
        with out_of_memory_faults(), runtime.drawn(settings, self._settings):
            made = self._made(settings, assignment.seed)
            if settings.train.lora_r > self._stack.rank:
                self._replays.forget()  # before the larger buffers want memory
                self._stack.fit(settings.train.lora_r)
                adapted_layers.bind(self._sites, self._stack)
            self._stack.put(slot, made.adapter, settings.train.lora_r)
        for name, site in self._sites.items():
            site.rescale(slot, made.scales.get(name, 0.0))
        self._losses[slot] = self._window_losses[slot] = 0.0
        stream = self._streams[slot].manual_seed(assignment.seed)
        trial = Slot(slot, settings, assignment, made, self._train, began, stream)
        if settings.train.lora_dropout > 0:
            self._board.dropouts[slot] = Dropout(settings.train.lora_dropout, trial.stream)
        found, notes = trial_state.find(trial)
        if found is not None:
            trial_state.take_up(trial, self._stack, found)
        trial.stillness = Stillness(self._sample(trial))
        self._slots[slot] = trial
        return runtime.setup(
            settings, max_steps=trial.max_steps, rows=len(self._train), count=made.count,
            lora_alpha=made.config.lora_alpha, adapted_modules=len(made.adapter), memory_before=memory,
            resumed_step=trial.step, note=states.told(assignment.number, trial.step, notes),
        )  # fmt: skip

    def refuses(self, params: Mapping[str, Any]) -> str | None:
        """Why a trial with these parameters cannot be packed on this base; None where it can. Raises a Fault that is no
        Unpackable where it cannot be trained at all."""
        settings = with_params(self._settings, params)
        if (reason := packs(settings)) is not None:
            return reason
        key = repr(settings.train.target_modules)  # beyond those that it names, all trials are alike
        if key not in self._refused:
            try:
                with out_of_memory_faults():
                    self._made(settings, seed=0)
                self._refused[key] = None
            except Unpackable as why:
                self._refused[key] = why.message
        return self._refused[key]

    def _made(self, settings: Settings, seed: int) -> Made:
        """A trial's adapter. Raises Unpackable where it has parts that no site takes."""
        if (reason := packs(settings)) is not None:
            raise Unpackable(Reason.CONFIG, reason, _ALONE)
        made = self._maker.make(settings, seed)
        if outside := sorted(set(made.adapter) - set(self._sites)):
            what = (
                f"the adapter on {outside[0]} cannot be packed: it is no linear layer, and holds several (experts, say)"
            )
            raise Unpackable(Reason.CONFIG, what, _ALONE)
        return made

    def _make_room(self, slots: int) -> None:
        """Empty slots, and buffers for their adapters."""
        dtype = peft_adapters.state_dtype(self._model)
        compute = torch.bfloat16 if self._passes.autocast else dtype
        shapes = {name: site.shape for name, site in self._sites.items()}
        self._replays.forget()
        self._board.dropouts.clear()
        self._stack = Stack(shapes, slots, dtype, compute, self.device)
        for site in self._sites.values():
            site.make_room(slots)
        self._slots: list[Slot | None] = [None] * slots
        self._losses = torch.zeros(slots, device=self.device)
        """Of the windows since each slot's last evaluation, summed; and of the micro-batches of its open window:"""
        self._window_losses = torch.zeros(slots, device=self.device)
        # A slot's own and not its trial's: a recorded step draws its masks from the one that it was recorded with
        self._streams = [torch.Generator(self.device) for _ in range(slots)]

    def leave(self, slot: int) -> None:
        """Empties a slot, wherever its trial is. Its neighbours do not feel it; an empty slot stays empty."""
        trial = self._slots[slot]
        if trial is None:
            return
        self._writer.drop(trial)
        self._slots[slot] = None
        self._board.dropouts.pop(slot, None)
        for site in self._sites.values():
            site.rescale(slot, 0.0)
        self._stack.clear(slot)

    def confirm(self, slot: int) -> None:
        """The verdict on the slot's last evaluation: go on."""
        self._held(slot).confirm()

    def advance(self, limit: int | None = None) -> Sequence[Outcome]:
        """Trains until an evaluation is on disk, a fault, `limit` engine steps, or until every slot waits for a word.

        An engine step is one micro-batch of every slot that may train. All slots due at the same one are measured
        together, and go on while their adapters are written.
        """
        with out_of_memory_faults():
            for step in itertools.count():
                trials = [trial for trial in self._slots if trial is not None]
                if unheard := [(t.number, found) for t in trials if (found := t.progress.take_unheard()) is not None]:
                    return unheard
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
    def records(self) -> bool:
        """Whether steps are recorded and replayed."""
        return self._replays.on

    def rigid(self) -> AbstractContextManager[None]:
        """Meanwhile a step that finds no memory raises, where it would go on in smaller passes."""
        return self._training.rigid()

    def launching(self) -> AbstractContextManager[None]:
        """Meanwhile they are not: every kernel is launched."""
        return self._replays.paused()

    @property
    def free(self) -> list[int]:
        """The empty slots."""
        return [slot for slot, trial in enumerate(self._slots) if trial is None]

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        trials = [trial for trial in self._slots if trial is not None]
        moves = any(trial.progress.unheard or trial.due or trial.may_train(self._run_ahead) for trial in trials)
        return moves or bool(self._writer)

    def checksum(self) -> str:
        """SHA-256 over the base's weights: equal as long as no trial changed it."""
        return self._resident.checksum()

    def _held(self, slot: int) -> Slot:
        trial = self._slots[slot]
        if trial is None:
            raise LookupError(f"slot {slot} is empty")
        return trial

    def _step(self, active: Sequence[Slot]) -> list[Outcome]:
        parts, divisors = [], []
        for trial in active:
            trial.sign.leave()
            indices, targets = trial.next_batch()
            parts.append((trial.number, indices))
            divisors.append(targets)
        self._model.train()
        if short := self._training.run(parts, self._train, partial(self._learn, divisors)):
            return self._short_of_memory(short, active)
        full = [trial for trial in active if not trial.mid_window]
        if not full:
            return []
        numbers = torch.tensor([trial.number for trial in full], device=self.device)
        self._losses.index_add_(0, numbers, self._window_losses.index_select(0, numbers))
        self._window_losses.index_fill_(0, numbers, 0.0)
        norms = optimizer.apply(self._stack, [trial.update() for trial in full])
        failed: list[Outcome] = []
        for trial, norm in zip(full, norms, strict=True):
            trial.step += 1
            trial.grad_norm = norm
            with _failing(trial, failed):
                trial.stillness.stepped(partial(self._sample, trial), last=trial.done)
        return failed

    def _learn(self, divisors: Sequence[int], pieces: Pieces) -> None:
        """One pass there and back: adds to the gradients and to the losses of the windows."""
        tokens = sum(self._train.tokens(piece.rows) for piece in pieces)
        again = self._training.recompute
        shapes = None if again else self._replays.shapes(tokens)
        batch = collate([(piece.slot, piece.rows) for piece in pieces], self._train, self._pad, self.device, shapes)
        by = torch.tensor([divisors[piece.part] for piece in pieces]).to(self.device, non_blocking=True)
        recomputing = self._passes.recomputing() if again else nullcontext()
        with self._passes.shown(batch, training=True), recomputing:
            losses = self._passes.losses(batch, self._passes.backbone if again else self._replays.hidden) / by
            # A loss that is not finite makes the sum so, and no gradient but its own: the sum's gradient is 1 for each
            losses.sum().backward()
        slots = torch.tensor([piece.slot for piece in pieces], device=self.device)
        self._window_losses.index_add_(0, slots, losses.detach())

    def _short_of_memory(self, short: Pieces, active: Sequence[Slot]) -> list[Outcome]:
        """Takes the trials back to where their windows began, and makes passes smaller, unless it was recordings that
        held the memory; where they cannot be smaller, the trial whose row has no room fails."""
        recorded = self._replays.hold
        self._replays.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        for trial in active:
            trial.rewind()
            self._stack.grads[trial.number].zero_()
            self._window_losses[trial.number] = 0.0
        if recorded or self._training.shrink(short, self._train):
            return []
        trial = self._held(short[0].slot)
        trial.failed = True
        length = self._train.tokens(short[0].rows)
        fault = Fault(Reason.OUT_OF_MEMORY, f"out of memory at a single row of {length} tokens",
                      "lower data.max_length", runtime.device())  # fmt: skip
        return [(trial.number, fault)]

    def _evaluate(self, due: Sequence[Slot]) -> list[Outcome]:
        """Measures, and has written what is to be kept; gives those that failed."""
        sums = self._losses.tolist()
        self._model.eval()
        for trial in due:
            trial.draw()
        batch_size = self._settings.train.per_device_eval_batch_size
        losses = evaluate([trial.number for trial in due], self._validation, batch_size, self._sums)
        failed: list[Outcome] = []
        for trial, loss in zip(due, losses, strict=True):
            with _failing(trial, failed):
                trial.stillness.evaluated(loss, self._sample(trial), partial(self._effect, trial), trial.last_norm)
                evaluation = self._evaluation(trial, loss, sums[trial.number])
                better = trial.evaluated(loss)
                if trial.heard_of:
                    trial.confirm()
                else:
                    self._writer.write(trial, self._keeping(trial, evaluation, better))
            self._losses[trial.number] = 0.0
        return failed

    def _keeping(self, trial: Slot, evaluation: Evaluation, better: bool) -> Job:
        """A job that keeps the adapter, where it is the trial's best, and its state, where it is time for one, both
        as they are now."""
        due = trial.pace.due
        if not (better or due):
            return lambda: evaluation
        buffers = trial_state.buffers(self._stack)
        wanted = list(buffers) if due else ["weights"]
        copy = self._copies.of([buffers[name][trial.number] for name in wanted])
        parts = {
            name: self._stack.parts(row, trial.number, trial.made.adapter)
            for name, row in zip(wanted, copy.values, strict=True)
        }
        state = trial_state.state(trial, parts) if due else None

        def keep() -> Evaluation:
            copy.wait()
            told = evaluation
            if better:
                told = replace(
                    told, adapter=str(peft_adapters.save(trial.made, parts["weights"], trial.folder, self._model))
                )
            if state is not None:
                trial_state.keep(trial, state, told)
            return told

        return keep

    def _evaluation(self, trial: Slot, loss: float | None, losses: float) -> Evaluation:
        return Evaluation(
            step=trial.step,
            max_steps=trial.max_steps,
            eval_loss=loss,
            tokens=trial.tokens,
            train_loss=losses / trial.since_evaluation,
            seconds=trial.progress.seconds,
            memory=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None,
        )

    def _effect(self, trial: Slot) -> float:
        """Loss of one validation batch with the adapter minus without it."""
        size = min(len(self._validation), self._settings.train.per_device_eval_batch_size)
        part = trial.number, numpy.arange(size)
        with_adapter = self._sums([part]).item()
        scales = {name: site.scales[trial.number] for name, site in self._sites.items()}
        for site in self._sites.values():
            site.rescale(trial.number, 0.0)
        without = self._sums([part]).item()
        for name, site in self._sites.items():
            site.rescale(trial.number, scales[name])
        return with_adapter - without

    def _sums(self, parts: Sequence[Part]) -> torch.Tensor:
        """The negative log-likelihood of every part of the validation set, summed over its targets."""
        sums = torch.zeros(len(parts), device=self.device)

        def one(pieces: Pieces) -> None:
            batch = collate([(piece.slot, piece.rows) for piece in pieces], self._validation, self._pad, self.device)
            numbers = torch.tensor([piece.part for piece in pieces], device=self.device)
            sums.index_add_(0, numbers, self._passes.measure(batch))

        while short := self._measuring.run(parts, self._validation, one):
            self._replays.forget()
            if not self._measuring.shrink(short, self._validation):
                length = self._validation.tokens(short[0].rows)
                raise Fault(Reason.OUT_OF_MEMORY, f"at an evaluation: out of memory at a single row of {length} tokens",
                            "lower data.max_length", runtime.device())  # fmt: skip
            sums.zero_()
        return sums

    def _sample(self, trial: Slot) -> dict[str, torch.Tensor]:
        # As one tensor: what is asked of a sample is asked of all of its tensors alike
        return {"adapter": self._stack.sampled(trial.number, trial.made.adapter, SAMPLED)}


@contextmanager
def _failing(trial: Slot, outcomes: list[Outcome]) -> Iterator[None]:
    """A fault of one trial is its own."""
    try:
        yield
    except Fault as fault:
        trial.failed = True
        outcomes.append((trial.number, fault))
