"""What a search would do, worked out before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.config import Asha, Experiment, dump_resolved
from tuner.contract import Budget, InputError, Program
from tuner.scheduling.ladder import Ladder, make_ladder
from tuner.space import FunctionSpace, Space, experiment_space, recipe_values, with_params

UNKNOWN_TOKENS = 1_000_000
"""Stands for a budget in epochs until the data has been read; only shares of it are shown."""


@dataclass(frozen=True)
class Plan:
    """A search, resolved. budget: a trial's length. unit: what the ladder counts. max_t: the whole budget in that
    unit; None for tokens until the data has been read. rungs, grace, evaluate_at: shares of the budget. recipe: the
    parameters of trial 0. notes: sentences for the user. trials_per_gpu: as asked for, or 1 where the program cannot
    pack what the space may draw."""

    experiment: Experiment
    program: type[Program]
    space: Space | FunctionSpace
    budget: Budget
    unit: str
    max_t: int | None
    warmup: float
    eval_every: float
    recipe: Mapping[str, Any]
    notes: tuple[str, ...]
    trials_per_gpu: int = 1

    def ladder(self, tokens: int | None = None) -> Ladder:
        """The rungs, in steps or tokens. tokens: training tokens in one epoch, once they are known."""
        scheduler = self.experiment.scheduler
        max_t = self.max_t
        if max_t is None:
            max_t = round((tokens or UNKNOWN_TOKENS) * (self.budget.epochs or 1))
        grace = scheduler.grace_period if isinstance(scheduler, Asha) else None
        if grace and (self.max_t or tokens) and grace > max_t:
            raise InputError(
                f"the grace period ({grace:,} {self.unit}s) is longer than a trial's budget ({max_t:,} {self.unit}s)",
                where="scheduler.grace_period",
                expected=f"at most {max_t:,}, or null for a period scaled to the budget",
                remedy="lengthen train.max_steps or num_train_epochs, or say scheduler.kind: none",
            )
        return make_ladder(
            max_t,
            grace_period=grace,
            reduction_factor=scheduler.reduction_factor if isinstance(scheduler, Asha) else None,
            warmup=self.warmup,
            eval_every=self.eval_every,
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "experiment": dump_resolved(self.experiment),
            "space": self.space.to_dict(),
            "budget": {"steps": self.budget.steps, "epochs": self.budget.epochs},
            "unit": self.unit,
            "rungs": self.rungs,
            "evaluate_at": self.evaluate_at,
            "recipe": dict(self.recipe),
            "notes": self.notes,
        }

    @property
    def rungs(self) -> tuple[float, ...]:
        ladder = self.ladder()
        return tuple(rung / ladder.max_t for rung in ladder.rungs)

    @property
    def grace(self) -> float:
        ladder = self.ladder()
        return ladder.grace_period / ladder.max_t

    @property
    def evaluate_at(self) -> tuple[float, ...]:
        return self.ladder().evaluate_at


def make_plan(experiment: Experiment) -> Plan:
    """Resolves a search: space, recipe, budget, rungs. Raises InputError; imports neither ray nor torch."""
    program = experiment.program_class
    space = experiment_space(experiment)
    budget = program.budget(experiment.settings)
    recipe = space.recipe(recipe_values(experiment.settings, program))
    unpackable = _unpackable(program, experiment, space)
    plan = Plan(
        experiment=experiment,
        program=program,
        space=space,
        budget=budget,
        unit="step" if budget.steps else "token",
        max_t=budget.steps,
        warmup=_longest_warmup(program, experiment, space),
        eval_every=_eval_every(experiment, budget),
        recipe=recipe.params,
        notes=(*experiment.notes, *recipe.notes, *_used_up(experiment, space), *unpackable),
        trials_per_gpu=1 if unpackable else experiment.scheduler.trials_per_gpu,
    )
    plan.ladder()
    return plan


def _unpackable(program: type[Program], experiment: Experiment, space: Space | FunctionSpace) -> tuple[str, ...]:
    """Why the search runs unpacked although packing was asked for: the first value that cannot be packed."""
    if experiment.scheduler.trials_per_gpu == 1:
        return ()
    packs = getattr(program, "packs", None)
    if packs is None:
        return (f"trials run unpacked: the program {experiment.program} packs none",)
    points: list[dict[str, Any]] = [{}]
    points += [{name: value} for name, parameter in space.parameters.items() for value in parameter.extremes()]
    for point in points:
        if why := packs(with_params(experiment.settings, point, program)):
            return (f"trials run unpacked: {why}",)
    return ()


def _used_up(experiment: Experiment, space: Space | FunctionSpace) -> tuple[str, ...]:
    if experiment.search.sampler.kind != "grid" or not space.size or experiment.search.num_trials <= space.size:
        return ()
    return (f"the grid has {space.size} points: the search ends after them",)


def _longest_warmup(program: type[Program], experiment: Experiment, space: Space | FunctionSpace) -> float:
    own = recipe_values(experiment.settings, program)
    for name, parameter in program.PARAMETERS.items():
        if parameter.warmup:
            return float(space.upper_bound(name) or own[name] or 0.0)
    return 0.0


def _eval_every(experiment: Experiment, budget: Budget) -> float:
    """Share of a trial between evaluations; `train.eval_steps` is steps, or already a share."""
    every = getattr(getattr(experiment.settings, "train", None), "eval_steps", None) or 0.1
    if every < 1:
        return float(every)
    return min(1.0, every / budget.steps) if budget.steps else 0.1
