"""The SFT program: TRL's SFTTrainer over a resident base, one adapter after another.

Importing this module costs no torch. `prepare` makes the tokenized rows once a search; an instance loads the base once
a worker; `start` sets a trial up, `step` runs it to its next evaluation, and `stop` removes it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables import fitting, runtime
from trainables.after_training import AfterTraining
from trainables.out_of_memory import out_of_memory_faults
from trainables.settings import PARAMETERS, REFUSED, Settings, with_params
from trainables.settings.metrics import name_of
from trainables.settings.train import CHANGES_BASE
from tuner.contract import (
    ALONE,
    EVAL_LOSS,
    Assignment,
    BaseLook,
    Budget,
    Evaluation,
    Fault,
    Group,
    Look,
    LookRequest,
    Objective,
    Parameter,
    Preparation,
    Reason,
    Retraining,
    Setup,
    Tell,
    TrialSize,
    Unpackable,
    silent,
)

if TYPE_CHECKING:
    from trainables.hf.solo_trial import SoloTrial
    from trainables.models.resident import Resident
    from trainables.packed.engine import Engine

CHECK_BASE = "TUNER_CHECK_BASE"
"""Environment variable: with 1, a checksum of the base's weights is computed after every trial, and a change is a
fault."""


class SFT(AfterTraining):
    """Supervised fine-tuning of a LoRA or QLoRA adapter."""

    Settings: ClassVar[Any] = Settings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = PARAMETERS
    REFUSED: ClassVar[Mapping[str, str]] = REFUSED

    @classmethod
    def budget(cls, settings: Any) -> Budget:
        """A trial's length in the recipe."""
        train = runtime.validated(settings).train
        return Budget(steps=train.max_steps, epochs=train.num_train_epochs)

    @classmethod
    def eval_every(cls, settings: Any) -> float:
        """Steps, or a share of the trial, between two evaluations."""
        return runtime.validated(settings).train.eval_steps

    @classmethod
    def objectives(cls, settings: Any) -> tuple[Objective, ...]:
        """The validation loss, and the metrics of answers, which a trial has at its end."""
        asked = runtime.validated(settings).metrics
        wanted = name_of(asked.objective or "")
        found = [Objective(name_of(spec), name_of(spec), "maximize", measured="end") for spec in asked.names]
        first = [metric for metric in found if metric.name == wanted]
        return *first, EVAL_LOSS, *(metric for metric in found if metric.name != wanted)

    @classmethod
    def with_params(cls, settings: Any, params: Mapping[str, Any]) -> Settings:
        """The settings with a trial's parameters in place."""
        return with_params(settings, params)

    @classmethod
    def notes(cls, settings: Any, varied: Collection[str]) -> tuple[str, ...]:
        """Sentences that a person should read before anything runs. varied: names that the space searches.

        Raises InputError where the base is no language model by its config, or rows may be longer than its table of
        positions.
        """
        from trainables.answers import metrics
        from trainables.models.remarks import remarks

        found = runtime.validated(settings)
        for spec in found.metrics.names:
            metrics.find(spec)
        goal = found.metrics.objective
        ranks = (f"trials are compared at rungs by the validation loss, and ranked by {name_of(goal or '')}, which a "
                 "trial has at its end: one whose loss is flat goes on")  # fmt: skip
        return (*([ranks] if goal is not None else ()), *remarks(found, varied))

    @classmethod
    def files_beside(cls, settings: Any, files: Mapping[str, Collection[Path]]) -> Mapping[Path, Collection[str]]:
        """The pictures that files of rows name. Raises InputError."""
        from trainables.images.travelling import pictures

        return pictures(runtime.validated(settings).data, files)

    @classmethod
    def describe_base(cls, settings: Any) -> str:
        """The base in a sentence, by its config and the headers of its files; "" where it is not on this machine."""
        from trainables.models import summary

        return summary.short(runtime.validated(settings).model)

    @classmethod
    def look_at_base(cls, settings: Mapping[str, Any]) -> BaseLook:
        """The base without its weights: parts, targets, memory, packing, chat template. Raises InputError."""
        from trainables import imports
        from trainables.models.looking import look

        found = runtime.validated(settings)
        with imports.heavy():
            from trainables.packed import bases
        return look(found, cls.packs(found, {}), bases.foreseen)

    @classmethod
    def retraining(cls, settings: Any, epochs: float | None = None, adapter: str | None = None) -> Retraining:
        """The settings of a longer run, or of one from an adapter, and what scales with the length. Raises
        InputError."""
        from trainables.settings.retraining import retraining

        return retraining(runtime.validated(settings), epochs, adapter)

    @classmethod
    def unpinned(cls, settings: Any) -> bool:
        """Whether the settings name anything on the hub without saying which commit of it."""
        from trainables.hub import sources

        return bool(sources.unpinned(runtime.validated(settings)))

    @classmethod
    def pin(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """By setting, for each that `unpinned` finds: the commit that its branch or tag stands for now. Raises
        InputError."""
        from trainables.hub import client, sources

        return {source.setting: client.commit(source) for source in sources.unpinned(runtime.validated(settings))}

    @classmethod
    def look(cls, settings: Any, request: LookRequest) -> Look | None:
        """The rows as the model sees them. Raises InputError."""
        from trainables.preparing import look

        return look(runtime.validated(settings), request)

    @classmethod
    def trial_size(cls, settings: Any, params: Mapping[str, Any], rows: int, tokens: float) -> TrialSize | None:
        """Steps and tokens of a whole trial, with rows of the mean length."""
        from trainables.settings import steps

        return steps.trial_size(with_params(runtime.validated(settings), params).train, rows, tokens)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path, tell: Tell = silent) -> Preparation:
        """Reads, checks and tokenizes the rows, once for all trials. Raises InputError and Fault."""
        from trainables import quiet
        from trainables.preparing import prepare

        quiet.before_imports()
        return prepare(runtime.validated(settings), Path(cache), tell)

    @classmethod
    def check_values(
        cls, settings: Any, values: Mapping[str, Sequence[Any]], preparation: Preparation
    ) -> tuple[str, ...]:
        """Notes on the layers that a value of `target_modules` leaves out. Raises InputError for a value that the base
        has no layers for."""
        from trainables.images import vision
        from trainables.models import reach

        found = runtime.validated(settings)
        vision.require_images(found.model.vision, values.get("vision", ()), preparation.facts)
        known, recipe = preparation.facts.get(reach.FACT), found.train.target_modules
        notes = reach.check_values(known, recipe, values.get("target_modules", ()))
        reach.check_experts(known, found.train)
        seeing = vision.are_in(preparation.facts)
        return tuple(note for note in notes if not (seeing and note.endswith(reach.NO_TEXT)))

    @classmethod
    def packs(cls, settings: Any, params: Mapping[str, Any]) -> str | None:
        """Why a trial with these parameters cannot be packed with others; None where it can."""
        from trainables.packed.packing_rules import packs

        return packs(with_params(runtime.validated(settings), params))

    @classmethod
    def spreads(cls, settings: Any, params: Mapping[str, Any], group: Group) -> str | None:
        """Why a trial with these parameters cannot be trained by several processes; None where it can."""
        from trainables.settings.spreading import spreads

        return spreads(with_params(runtime.validated(settings), params), group)

    @classmethod
    def warm(cls) -> None:
        """Imports what a trial needs (10 to 20 s in a fresh process), while another process still prepares the rows."""
        from trainables import imports

        with imports.heavy():
            import trainables.hf.solo_trial
            import trainables.packed.engine  # noqa: F401

    @classmethod
    def memory(
        cls, settings: Any, params: Mapping[str, Any], slots: int, group: Group = ALONE
    ) -> dict[str, int | None] | str | None:
        """Bytes at the peak on a GPU by what they are for, and `total`; None where the base's config is not at hand,
        and why it is not known where its sizes are not in there.

        For one trial with these parameters, or `slots` of them packed, and rows of `data.max_length` tokens. group: the
        processes that train it, with a GPU each.
        """
        from trainables.models import memory

        return memory.of_trial(with_params(runtime.validated(settings), params), slots, group)

    @classmethod
    def pack(cls, settings: Mapping[str, Any], preparation: Preparation, slots: int, *, beside: bool = False) -> Engine:
        """An engine for `slots` packed trials; see trainables.packed. beside: an unpacked trial may share its GPU."""
        from trainables import packed
        from trainables.images import vision

        if vision.are_in(preparation.facts):
            raise Unpackable(Reason.CONFIG, vision.NOT_PACKED, "set resources.trials_per_gpu to 1")
        # CUDA graphs would hold the memory that a trial beside needs
        return packed.load(settings, preparation, slots, capture=not beside)

    @classmethod
    def unlike(cls, first: Mapping[str, Any], own: Mapping[str, Any]) -> str:
        """A note where a trial computes in another precision than the first did: `auto` follows the kind of device."""
        return runtime.unlike(first, own)

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation, group: Group = ALONE) -> None:
        """Loads the base. group: the processes that train together, of which this is one; all get the same calls.

        Raises Fault and InputError as `runtime.load_base`.
        """
        from trainables import imports

        with imports.heavy():
            import trainables.hf.solo_trial  # noqa: F401  paid once a worker
        self._settings = runtime.validated(settings)
        self.preparation = preparation
        self._group = group
        inputs = runtime.open_inputs(self._settings, preparation)
        if inputs.collator is not None and group.size > 1:
            raise Fault(Reason.CONFIG, "rows have images, and a trial with them is trained by one process",
                        "set resources.processes to 1")  # fmt: skip
        self._inputs = inputs
        self._measurer = runtime.measurer(self._settings, preparation, inputs)
        self.trial: SoloTrial | None = None
        """The trial that is set up; None between two trials."""
        self.resident: Resident | None = None
        """The base; None after a trial that changed it: the next trial loads it again."""
        self._checksum = ""
        self._base_changed = False
        self._fitted = self._settings
        # So that the collector does not search the libraries' 500,000 objects after every trial. Before the base is
        # loaded, which must remain collectable
        gc.collect()
        gc.freeze()
        self._load_base()

    def start(self, assignment: Assignment) -> Setup:
        """Sets a trial up: adapter, optimizer, schedule. Nothing is trained yet. Raises Fault and InputError."""
        from trainables.hf.solo_trial import SoloTrial

        began = time.monotonic()
        if self.trial is not None:
            self.stop()
        if self.resident is None:
            self._load_base()
        assert self.resident is not None
        settings = with_params(self._settings, assignment.params)
        settings = self._fitted = fitting.fitted(settings, assignment.fits.get(runtime.device_name()))
        # FSDP shards a base and adds hooks between its layers
        self._base_changed = settings.train.init_lora_weights in CHANGES_BASE or self._group.shares_base
        with self._memory_faults(), runtime.target_faults(settings, self._settings):
            self.trial = SoloTrial(
                settings, assignment, self.resident, self._inputs, began, self._group, self._measurer
            )
        return self._setup(settings, self.trial)

    def step(self) -> Evaluation:
        """Trains to the next evaluation point and measures. Raises Fault."""
        if self.trial is None:
            raise RuntimeError("step() before start()")
        with self._memory_faults():
            return self.trial.stepper.next()

    def stop(self) -> None:
        """Ends the trial, at whatever step it is, and restores the base as it was loaded. A second call does
        nothing."""
        from trainables.hf.solo_trial import release_memory

        trial, self.trial = self.trial, None
        if trial is not None:
            trial.close()
            trial.remove()
            del trial
        if self.resident is not None:
            self.resident.restore()
        if self._base_changed:
            self.resident = None  # the next start loads it again; there may be none
            self._base_changed = False
        release_memory()
        self._check_base()

    @contextmanager
    def _memory_faults(self) -> Iterator[None]:
        """Within it, out of memory is raised as a Fault with the next arrangement that needs less.

        At an evaluation there is none: validation batches are the same for all trials, so that losses can be compared.
        """
        try:
            with out_of_memory_faults():
                yield
        except Fault as fault:
            if fault.reason is not Reason.OUT_OF_MEMORY:
                raise
            if self.trial is not None and self.trial.trainer.measuring:
                remedy = "lower train.per_device_eval_batch_size or data.max_length"
                raise Fault(
                    fault.reason, f"at an evaluation: {fault.message}", remedy, runtime.device_name()
                ) from fault
            smaller = fitting.smaller(self._fitted, self._group.size)
            raise Fault(fault.reason, fault.message, fault.remedy, runtime.device_name(), smaller) from fault

    def _load_base(self) -> None:
        from trainables.models.resident import Resident

        self.resident = Resident(runtime.load_base(self._settings, self.preparation, self._group))
        if os.environ.get(CHECK_BASE) == "1":
            self._checksum = self.resident.checksum()

    def _check_base(self) -> None:
        if self._checksum and self.resident is not None and self.resident.checksum() != self._checksum:
            raise Fault(Reason.ERROR, "a trial changed the weights of the base it shares with others")

    def _setup(self, settings: Settings, trial: SoloTrial) -> Setup:
        from trainables import states

        return runtime.setup(
            settings,
            max_steps=trial.max_steps,
            rows=len(self._inputs.train),
            count=trial.count,
            lora_alpha=trial.config.lora_alpha,
            adapted_modules=trial.adapted_modules(),
            parts=trial.parts,
            base_class=trial.base_class,
            memory_before=trial.memory_before,
            resumed_step=trial.resumed_step,
            note=states.resume_note(trial.number, trial.resumed_step, trial.notes),
            processes=self._group.size,
            images=self._inputs.collator is not None,
        )
