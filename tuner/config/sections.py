"""The sections of an experiment file that belong to the search itself: `search`, `scheduler`, `resources`, `run`.

The other sections (`model`, `data`, `train`) belong to the program that trains. Field descriptions feed the JSON
Schema that editors read, so they are written for the person who fills in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from tuner.config import amounts

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What the name of a run matches."""
RUN_NAME_RULE = (
    "1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit: "
    "the name is a folder and stays inside the storage path"
)
"""RUN_NAME in words, for errors."""


class Section(BaseModel):
    """Base of the sections. Strict: an unknown key or a value of another type is an error, never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _word(value: Any) -> Any:
    """Makes `sampler: {kind: random}` of `sampler: random`."""
    return {"kind": value} if isinstance(value, str) else value


def _default_kind(kind: str) -> Any:
    """A validator that expands a bare word, and fills in `kind` where a mapping does not give it."""

    def fill(value: Any) -> Any:
        value = _word(value)
        return {"kind": kind, **value} if isinstance(value, dict) and "kind" not in value else value

    return fill


class Tpe(Section):
    """Tree-structured Parzen estimator, multivariate and grouped: the default, good from about 10 trials on."""

    kind: Literal["tpe"] = "tpe"
    n_startup_trials: int | None = Field(
        default=None, ge=1, description="Random trials before the model is used. null: scaled to `num_trials`."
    )


class Rungs(Section):
    """A Gaussian process over parameters and resource: it learns from every loss at a rung, stopped trials included."""

    kind: Literal["rungs"] = "rungs"
    n_startup_trials: int | None = Field(
        default=None, ge=1, description="Quasi-random trials before the model is used. null: scaled to `num_trials`."
    )


class Random(Section):
    """Independent draws."""

    kind: Literal["random"] = "random"


class Grid(Section):
    """Every point once, in random order; the space must be finite. The search ends when the grid is used up."""

    kind: Literal["grid"] = "grid"


class Gp(Section):
    """Gaussian process with expected improvement. It learns from completed trials alone."""

    kind: Literal["gp"] = "gp"


class Cmaes(Section):
    """CMA-ES: for numbers, from about 100 trials on."""

    kind: Literal["cmaes"] = "cmaes"


class Qmc(Section):
    """Quasi-random (Sobol) draws that cover the space evenly."""

    kind: Literal["qmc"] = "qmc"


SAMPLERS = ("tpe", "rungs", "random", "grid", "gp", "cmaes", "qmc")

Sampler = Annotated[
    Annotated[Tpe | Rungs | Random | Grid | Gp | Cmaes | Qmc, Field(discriminator="kind")],
    BeforeValidator(
        _default_kind("tpe"),
        json_schema_input_type=Literal["tpe", "rungs", "random", "grid", "gp", "cmaes", "qmc"]
        | Tpe
        | Rungs
        | Random
        | Grid
        | Gp
        | Cmaes
        | Qmc,
    ),
]


def _read(read: Callable[[Any], Any], *accepted: type) -> Any:
    """A validator that reads an amount as people write it. accepted: the types in which it may be written."""
    return BeforeValidator(read, json_schema_input_type=Union[accepted])  # noqa: UP007  made of a tuple


Until = Annotated[int | str, _read(amounts.span, int, str)]


class NoMoreGain(Section):
    """Ends a search that no longer finds anything better."""

    gain_below: Annotated[float, _read(amounts.share, float, str)] = Field(
        description="End when the best value improved by less than this share: 0.5%."
    )
    next: Until = Field(description="In the last so many trials that ended (20), or in the last hours (1h).")


class SearchBudget(Section):
    """What a search may spend. It ends at whichever comes first, these or `num_trials`."""

    tokens: Annotated[int, _read(amounts.count, int, str)] | None = Field(
        default=None, description="Training tokens of all trials: 20M."
    )
    gpu_hours: float | None = Field(
        default=None, gt=0, le=1e9, description="Hours that the search holds GPUs, of all GPUs together."
    )
    money: float | None = Field(
        default=None, gt=0, le=1e12, description="What these GPU-hours cost, by run.price_per_gpu_hour."
    )
    wall_time: Annotated[str, _read(amounts.is_duration, str)] | None = Field(
        default=None, description="Time on the clock, of all sessions together: 90 min, 2h."
    )
    until: NoMoreGain | None = Field(default=None, description="End when nothing better is found any more.")


class Search(Section):
    """What is searched, how often, and by which sampler."""

    space: str | dict[str, Any] = Field(
        default="lora",
        description="A shipped space by name (`tuner spaces`), a YAML file, a Python function "
        "`package.module:function`, or a mapping with `parameters:` right here.",
    )
    num_trials: int = Field(default=16, ge=1, description="Trials in all, the recipe (trial 0) included.")
    budget: SearchBudget = Field(default=SearchBudget(), description="What the search may spend.")
    sampler: Sampler = Field(default=Tpe(), description="What proposes the next trial.")
    priors: Literal["space", "none"] = Field(
        default="space",
        description="space: the trials after the recipe are the points that the space names as `first`, where the "
        "sampler learns from them (tpe, rungs, gp, cmaes). none: the sampler draws all trials but the recipe.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Seeds the sampler and the trials. The split of the data has a seed of its own.",
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Where the space has nothing to search: the recipe is trained this many times, as `num_trials` "
        "trials with a seed each.",
    )


class Flatline(Section):
    """A trial whose best validation loss no longer improves has converged: it ends, complete, and may win."""

    patience: int = Field(default=3, ge=1, description="Evaluations without improvement before the trial ends.")
    min_delta: float = Field(default=0.001, ge=0, lt=1, description="Relative improvement that counts: 0.001 is 0.1%.")
    after: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of the budget before which nothing is called flat: a loss that stands still at the peak of "
        "the learning rate often falls again when the schedule lowers it.",
    )


class Diverged(Section):
    """A trial whose validation loss explodes is pruned."""

    factor: float = Field(
        default=2.0, gt=1, description="Diverged above this many times the trial's first validation loss."
    )


_FLATLINE = "End a trial that has converged; null: the rule is off."
_DIVERGED = "End a trial whose loss explodes; null: only a loss that is not finite ends it."


class Asha(Section):
    """Asynchronous successive halving: at each rung a trial goes on if it is in the best 1/reduction_factor."""

    kind: Literal["asha"] = "asha"
    reduction_factor: float = Field(default=3, gt=1, le=16, description="One in this many trials goes on at a rung.")
    grace_period: int | None = Field(
        default=None,
        ge=1,
        description="No trial is stopped at a rung before this many optimizer steps, or tokens if the budget is in "
        "epochs. null: twice the longest warm-up of the space, at least 1/27 of the budget.",
    )
    flatline: Flatline | None = Field(default=Flatline(), description=_FLATLINE)
    diverged: Diverged | None = Field(default=Diverged(), description=_DIVERGED)


class NoScheduler(Section):
    """No rungs: every trial runs its whole budget unless a rule below is switched on."""

    kind: Literal["none"] = "none"
    flatline: Flatline | None = Field(default=None, description=_FLATLINE)
    diverged: Diverged | None = Field(default=None, description=_DIVERGED)


Scheduler = Annotated[
    Annotated[Asha | NoScheduler, Field(discriminator="kind")],
    BeforeValidator(_default_kind("asha"), json_schema_input_type=Literal["asha", "none"] | Asha | NoScheduler),
]

DEFAULT_KINDS: dict[tuple[str | int, ...], str] = {("search", "sampler"): "tpe", ("scheduler",): "asha"}
"""The `kind` of a section that does not give it."""


_PACKED = (
    "Trials that share one GPU, or one worker's CPUs. Above 1 they are packed: one pass of the base for all of them, "
    "each exactly as it would run alone. auto: as many as fit in memory and make the search faster, by measurement."
)
TrialsPerGpu = Annotated[int, Field(ge=1, le=256)] | Literal["auto"]
_GPUS = (
    "GPUs of a trial. A fraction is a share of one GPU; a whole number above 1 trains each trial with one process on "
    "each of these GPUs. null: 1 where there are GPUs, else 0."
)
_WORKERS = (
    "Processes that train one trial together, each on a GPU of its own, or on its part of the CPUs where there is no "
    "GPU. null: gpus_per_trial if that is above 1, else 1."
)
_STRATEGY = (
    "What the processes of a trial divide. ddp: the rows. fsdp: also the base, if it does not fit on one GPU; "
    "it is then loaded again for every trial."
)
GpusPerTrial = Annotated[float, Field(ge=0, le=1024)] | None
WorkersPerTrial = Annotated[int, Field(ge=1, le=1024)] | None
Strategy = Literal["ddp", "fsdp"]


class Resources(Section):
    """What a trial gets, and how many run at a time."""

    cpus_per_trial: float = Field(default=1, gt=0, description="CPU cores that a trial reserves.")
    gpus_per_trial: GpusPerTrial = Field(default=None, description=_GPUS)
    accelerator_type: str | None = Field(
        default=None, min_length=1, description="Only GPUs of this type, by Ray's name: H100, A100-80G. null: any."
    )
    trials_per_gpu: TrialsPerGpu = Field(default=1, description=_PACKED)
    workers_per_trial: WorkersPerTrial = Field(default=None, description=_WORKERS)
    strategy: Strategy = Field(default="ddp", description=_STRATEGY)
    max_concurrent_trials: int | None = Field(
        default=None, ge=1, description="Trials that run at a time, at most. null: as many as fit."
    )
    scale_to: int | None = Field(
        default=None,
        ge=1,
        description="Workers to ask Ray for, if an autoscaler adds nodes on demand: workers that find no room are "
        "pending, and the autoscaler adds nodes for them. null: as many as fit on the nodes that are there.",
    )

    @property
    def processes(self) -> int:
        """How many processes train a trial."""
        return self.workers_per_trial or max(1, int(self.gpus_per_trial or 1))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        gpus, processes = self.gpus_per_trial, self.processes
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_trial {gpus:g}: a share of one GPU (at most 1), or a whole number of them")
        if gpus and max(gpus, processes) > 1 and gpus != processes:
            raise ValueError(
                f"workers_per_trial {processes} with gpus_per_trial {gpus:g}: each process trains on a GPU of its own; "
                "give one of the two, or gpus_per_trial 0 for CPUs"
            )
        if processes > 1 and self.trials_per_gpu != 1:
            raise ValueError(
                f"trials_per_gpu {self.trials_per_gpu} with {processes} processes a trial: packed trials share the "
                "base of one GPU, and a trial on several has a part of each; set one of the two to 1"
            )
        if self.strategy == "fsdp" and processes == 1:
            raise ValueError(
                "strategy fsdp shares the base out to several GPUs: set gpus_per_trial to 2 or more, or take ddp"
            )
        return self


def _run_name(name: str) -> str:
    if not RUN_NAME.fullmatch(name):
        raise PydanticCustomError("expected", RUN_NAME_RULE)
    return name


RunName = Annotated[
    str, AfterValidator(_run_name), WithJsonSchema({"type": "string", "pattern": f"^{RUN_NAME.pattern}$"})
]


class MadeOf(Section):
    """A part that trials are made of, by its fingerprint."""

    source: str = Field(description="What the settings call it; under another name it is not compared.")
    fingerprint: str = Field(description="Of its content.")


class Run(Section):
    """Where the search runs, and what it keeps."""

    name: RunName | None = Field(
        default=None, description="The run's folder under `storage_path`. null: date and time."
    )
    storage_path: str = Field(
        default="runs",
        min_length=1,
        description="Folder of the runs, relative to the current folder; or a URI: s3://bucket/runs, gs://bucket/runs.",
    )
    program: str = Field(default="sft", min_length=1, description="What fine-tunes: `sft`, or `package.module:Class`.")
    address: str | None = Field(
        default=None,
        min_length=1,
        description="Address of a running Ray cluster. null: RAY_ADDRESS if it is set, else Ray is started here.",
    )
    price_per_gpu_hour: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="What a GPU costs an hour, in your currency: `plan`, the end of a search and `report` say the "
        "price. null: it is not said.",
    )
    hang_timeout: float | None = Field(
        default=None,
        ge=0,
        description="Seconds without a report or a step after which a trial counts as hung: it is killed and tried "
        "again once. null: 20 times the longest time that a trial was silent and then went on, at least an hour. "
        "0: never.",
    )
    keep_adapters: int = Field(
        default=3, ge=1, description="How many adapters are kept: those of the best trials; the recipe's too."
    )
    strict: bool = Field(default=False, description="Refuse what would otherwise be adjusted with a note.")
    trackers: list[Literal["tensorboard", "mlflow", "wandb", "trackio"]] = Field(
        default=["tensorboard"],
        description="Trackers that record the search. []: none.",
    )
    made_of: dict[str, MadeOf] = Field(
        default={},
        description="Fingerprints of base, tokenizer, rows and code, as in best/train.yaml; others are refused.",
    )
    min_free_mb: int = Field(
        default=256,
        ge=0,
        description="MiB that must be free on the disk of the runs at the start; a search pauses below a quarter of "
        "it.",
    )


class Sections(Section):
    """The search's own half of an experiment file."""

    search: Search = Field(default=Search())
    scheduler: Scheduler = Field(default=Asha())
    resources: Resources = Field(default=Resources())
    run: Run = Field(default=Run())
