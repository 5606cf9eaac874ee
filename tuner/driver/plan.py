"""Works out what a search would do, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.config import Experiment, dump_resolved
from tuner.contract import (
    EVAL_LOSS,
    Budget,
    Group,
    InputError,
    Look,
    LookRequest,
    Objective,
    Parameter,
    Program,
    checked_objectives,
)
from tuner.scheduling.algorithms import registered
from tuner.scheduling.forecast import Forecast, Pace, forecast
from tuner.scheduling.ladder import Ladder, make_ladder
from tuner.space import FunctionSpace, Recipe, Space, experiment_space, recipe_values
from tuner.space.first import laid_over
from tuner.space.parameters import Choice
from tuner.watch.trackers import require

UNKNOWN_TOKENS = 1_000_000
"""Tokens in an epoch that are assumed until the data has been read; only shares of the budget are shown."""


@dataclass(frozen=True)
class Plan:
    """A search with everything in it resolved."""

    experiment: Experiment
    program: type[Program]
    space: Space | FunctionSpace
    budget: Budget
    """The length of a trial."""
    unit: str
    """What the rungs are counted in: "step" or "token"."""
    max_t: int | None
    """The full budget in that unit; None for tokens, which are not known until the data has been read."""
    warmup: float
    """The longest warm-up in the space, as a share of the budget."""
    eval_every: float
    """The share of the budget between two evaluations."""
    recipe: Mapping[str, Any]
    """The parameters of trial 0."""
    notes: tuple[str, ...]
    """Sentences for the user."""
    objectives: tuple[Objective, ...] = (EVAL_LOSS,)
    """What the program measures: first the objective of the search, then those that are shown beside it."""
    trials_per_gpu: int | str = 1
    """As asked for, or 1 where the program can pack no trial of the space."""
    mixed: bool = False
    """Whether it can pack some trials of the space, and the others run unpacked beside them."""
    unasked: bool = False
    """Whether it could pack some, and the settings do not ask for it."""
    heaviest: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of the trial that takes most memory."""
    probe_at: tuple[float, ...] = ()
    """Of a probe, the shares of a trial at which it is evaluated; () for a search."""
    points: Sequence[Mapping[str, Any]] = ()
    """Parameters at the extremes of the space, one parameter at a time (`_extremes`)."""

    @property
    def memory(self) -> Mapping[str, int | None] | str | None:
        """Bytes that the heaviest trial takes on a GPU, or an engine full of them: by what they are for, None
        where that is not known, and `total`. Where the program cannot tell: why, or None."""
        return self._memory_of(self.heaviest)

    def _memory_of(self, params: Mapping[str, Any]) -> Mapping[str, int | None] | str | None:
        slots = 1 if self.trials_per_gpu == "auto" else int(self.trials_per_gpu)
        if self.group.size > 1:
            return self.program.memory(self.experiment.settings, params, slots, group=self.group)
        return self.program.memory(self.experiment.settings, params, slots)

    def memory_of(self, params: Mapping[str, Any]) -> int | None:
        """Bytes that a trial with these parameters takes on a GPU, or an engine full of them; None where the program
        cannot tell."""
        need = self._memory_of(params)
        return need["total"] if isinstance(need, Mapping) else None

    @property
    def base(self) -> str:
        """What the trials start from, in a sentence; "" where the program cannot tell."""
        return self.program.describe_base(self.experiment.settings)

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """By name of each parameter that is a choice: all its values."""
        return {
            name: parameter.options
            for name, parameter in self.space.parameters.items()
            if isinstance(parameter, Choice)
        }

    @property
    def group(self) -> Group:
        """The group of processes that train a trial, as its first one sees it."""
        resources = self.experiment.resources
        return Group(0, resources.processes, resources.strategy)

    def spreads(self, params: Mapping[str, Any]) -> InputError | None:
        """Why a trial with these parameters cannot be trained by as many processes as are asked for; None where it
        can."""
        if self.group.size == 1:
            return None
        why = self.program.spreads(self.experiment.settings, params, self.group)
        several = "workers_per_trial" if self.experiment.resources.workers_per_trial else "gpus_per_trial"
        return InputError(why, where=f"resources.{several}") if why else None

    @property
    def first(self) -> list[dict[str, Any]]:
        """The points of the trials after the recipe, in their order, that the space names and no sampler draws."""
        if self.experiment.search.priors == "none" or not self.learns or isinstance(self.space, FunctionSpace):
            return []
        points = laid_over(self.recipe, self.space.first, self.space.parameters)
        return points[: self.experiment.search.num_trials - 1]

    @property
    def learns(self) -> bool:
        """Whether the sampler learns from earlier trials."""
        return self.experiment.search.sampler.kind not in ("random", "grid", "qmc")

    def ladder(self, tokens: int | None = None) -> Ladder:
        """The rungs, in steps or tokens. tokens: training tokens in one epoch, once they are known. Raises InputError
        where the grace period is longer than the budget."""
        scheduler = self.experiment.scheduler
        spacing = registered(scheduler).spacing(scheduler)
        max_t = self.max_t
        if max_t is None:
            max_t = round((tokens or UNKNOWN_TOKENS) * (self.budget.epochs or 1))
        grace = spacing.grace_period if spacing else None
        if grace and (self.max_t or tokens) and grace > max_t:
            raise InputError(
                f"the grace period ({grace:,} {self.unit}s) is longer than a trial's budget ({max_t:,} {self.unit}s)",
                where="scheduler.grace_period",
                expected=f"at most {max_t:,}, or null for a period scaled to the budget",
                remedy="lengthen the trials, or say scheduler.kind: none",
            )
        if self.probe_at:
            return Ladder(max_t, max_t, 3, (), self.probe_at)
        return make_ladder(
            max_t,
            grace_period=grace,
            reduction_factor=spacing.reduction_factor if spacing else None,
            warmup=self.warmup,
            eval_every=self.eval_every,
        )

    def foresee(self, ladder: Ladder, workers: int, pace: Pace, costs: Sequence[float] = (1.0,)) -> Forecast:
        """What the search is expected to take, with so many trials at a time. costs: as in `forecast`."""
        return forecast(
            self.experiment.scheduler,
            ladder,
            self.objectives[0],
            self.experiment.search.num_trials,
            workers=workers,
            costs=costs,
            pace=pace,
            learns=self.learns,
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON."""
        memory = self.memory
        return {
            "experiment": dump_resolved(self.experiment),
            "space": self.space.to_dict(),
            "budget": {"steps": self.budget.steps, "epochs": self.budget.epochs},
            "unit": self.unit,
            "rungs": self.rungs,
            "evaluate_at": self.evaluate_at,
            "recipe": dict(self.recipe),
            "first": self.first,
            "notes": self.notes,
            "code": {key: str(own.file) for key, own in self.experiment.code.items()},
            "memory": dict(memory) if isinstance(memory, Mapping) else None,
            "base": self.base,
        }

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of the budget at which trials are compared."""
        ladder = self.ladder()
        return tuple(rung / ladder.max_t for rung in ladder.rungs)

    @property
    def grace(self) -> float:
        """The grace period as a share of the budget."""
        ladder = self.ladder()
        return ladder.grace_period / ladder.max_t

    @property
    def evaluate_at(self) -> tuple[float, ...]:
        """Shares of the budget at which trials are evaluated."""
        return self.ladder().evaluate_at

    @property
    def places(self) -> dict[str, Any]:
        """Where trials are evaluated and compared, as shares of the budget, and one of how many goes on at a rung."""
        factor = self.ladder().reduction_factor
        return {"evaluate_at": list(self.evaluate_at), "rungs": list(self.rungs), "reduction_factor": factor}


def make_plan(experiment: Experiment) -> Plan:
    """Resolves a search: space, recipe, budget, rungs. Raises InputError; imports neither ray nor torch."""
    require(experiment.run.trackers)
    program = experiment.program_class
    space = experiment_space(experiment)
    budget = program.budget(experiment.settings)
    recipe = space.recipe(recipe_values(experiment.settings, program))
    _require_seeds_alone(experiment, space)
    packing = _packing(program, experiment, space)
    plan = Plan(
        experiment=experiment,
        program=program,
        space=space,
        budget=budget,
        unit="step" if budget.steps else "token",
        max_t=budget.steps,
        warmup=_longest_warmup(program, experiment, space),
        eval_every=_eval_every(program.eval_every(experiment.settings), budget),
        recipe=recipe.params,
        objectives=_objectives(program, experiment),
        notes=(
            *experiment.notes,
            *program.notes(experiment.settings, frozenset(space.parameters)),
            *recipe.notes,
            *_size_notes(experiment, space, recipe),
            *packing.notes,
        ),
        trials_per_gpu=packing.trials_per_gpu,
        mixed=packing.mixed,
        unasked=packing.unasked,
        heaviest=_heaviest(program, space),
        points=_extremes(space),
    )
    plan.ladder()
    for point in _extremes(space):
        if why := plan.spreads(point):
            raise why
    return plan


def look_at_rows(plan: Plan) -> tuple[Look | None, str]:
    """The rows as the model sees them, where they and the tokenizer are on this machine; and why they are refused, ""
    where they are not."""
    try:
        look = plan.program.look(plan.experiment.settings, LookRequest(show=0, only_here=True))
    except InputError as error:
        return None, " ".join(str(error).split())
    if look is not None and look.refusal:
        return look, " ".join(str(InputError.from_dict(look.refusal)).split())
    return look, ""


def _objectives(program: type[Program], experiment: Experiment) -> tuple[Objective, ...]:
    try:
        objectives = checked_objectives(program.objectives(experiment.settings))
    except ValueError as error:
        raise InputError(
            f"the program {experiment.program} names no objectives that can be searched by: {error}",
            where="run.program",
            expected='OBJECTIVES = (Objective("eval_loss", direction="minimize"),), say',
        ) from error
    if objectives[0].measured == "end" and experiment.search.sampler.kind == "rungs":
        raise InputError(
            f"the sampler rungs models one number from the rungs to the end, and {objectives[0].title} is measured at "
            "the end alone",
            where="search.sampler",
            expected="tpe, random, grid, gp, cmaes or qmc",
        )
    return objectives


@dataclass(frozen=True)
class _Packing:
    trials_per_gpu: int | str
    mixed: bool = False
    unasked: bool = False
    notes: tuple[str, ...] = ()


def _packing(program: type[Program], experiment: Experiment, space: Space | FunctionSpace) -> _Packing:
    """Whether all, some or none of the trials of the space can be packed, judged by its extremes."""
    wanted = experiment.resources.trials_per_gpu
    points = _extremes(space)
    reasons = [(point, program.packs(experiment.settings, point)) for point in points]
    refused = [(point, why) for point, why in reasons if why]
    if wanted == 1:
        could = len(refused) < len(points) and experiment.search.num_trials > 1 and experiment.resources.processes == 1
        return _Packing(1, unasked=could)
    if not refused:
        return _Packing(wanted)
    if len(refused) == len(points):
        return _Packing(1, notes=(f"trials run unpacked: {refused[0][1]}",))
    told = (f"a trial that cannot be packed runs alone, beside the packed ones: {refused[0][1]}",)
    return _Packing(wanted, mixed=True, notes=told)


def _extremes(space: Space | FunctionSpace) -> list[dict[str, Any]]:
    """The recipe (no parameter changed), and the recipe with one parameter at an end of its range or at one of its
    choices: a point for each."""
    points: list[dict[str, Any]] = [{}]
    return points + [{name: value} for name, parameter in space.parameters.items() for value in parameter.extremes()]


def _heaviest(program: type[Program], space: Space | FunctionSpace) -> dict[str, Any]:
    """The value of every parameter that takes memory with which it takes most."""
    most = {name: _most(space, name, parameter) for name, parameter in program.PARAMETERS.items() if parameter.heavy}
    return {name: value for name, value in most.items() if value is not None}


def _most(space: Space | FunctionSpace, name: str, parameter: Parameter) -> Any:
    """The largest number that a trial can draw, or the last of the choices; None where it is not searched."""
    if not parameter.choices:
        return space.upper_bound(name)
    searched = space.parameters.get(name)
    drawn = searched.options if isinstance(searched, Choice) else ()
    return max(drawn, key=parameter.choices.index, default=None)


def _size_notes(experiment: Experiment, space: Space | FunctionSpace, recipe: Recipe) -> tuple[str, ...]:
    """A note for the user where the space has fewer points than the search has trials."""
    outside = bool(recipe.notes)
    if experiment.search.seeds > 1:
        return ()
    if not space.size or experiment.search.num_trials <= space.size + outside:
        return ()
    points = f"{space.size} points" if space.size > 1 else "one point"
    beside = ", and the recipe lies outside it" if outside else ""
    return (f"the space has {points}{beside}; each runs once: the search ends after them",)


def _require_seeds_alone(experiment: Experiment, space: Space | FunctionSpace) -> None:
    """Raises InputError where seeds are asked for and the space has something to search: the best of many seeds does
    not repeat."""
    if experiment.search.seeds > 1 and (not isinstance(space, Space) or space.parameters):
        raise InputError(
            f"got {experiment.search.seeds}, and the space {space.name} has parameters to search",
            where="search.seeds",
            expected="1, or a space without parameters",
            remedy="train one point with several seeds by `tuner train NAME --seeds N`",
        )


def _longest_warmup(program: type[Program], experiment: Experiment, space: Space | FunctionSpace) -> float:
    own = recipe_values(experiment.settings, program)
    for name, parameter in program.PARAMETERS.items():
        if parameter.warmup:
            return float(space.upper_bound(name) or own[name] or 0.0)
    return 0.0


def _eval_every(every: float, budget: Budget) -> float:
    """Share of a trial between evaluations. every: optimizer steps, or already a share."""
    if every < 1:
        return float(every)
    return min(1.0, every / budget.steps) if budget.steps else 0.1
