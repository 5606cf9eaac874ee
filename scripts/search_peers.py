"""Ways to search that `bench_search.py` replays: tuner's own, and those of Optuna and of Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search_surfaces import WORST, Surface

RECIPE = {
    "learning_rate": 3e-4, "lora_r": 8, "lora_alpha_mode": "fixed", "effective_batch_size": 4,
    "lr_scheduler_type": "linear", "warmup_ratio": 0.03, "target_modules": "all-linear", "max_grad_norm": 1.0,
}  # fmt: skip
"""Trial 0 of tuner, and what a parameter has that a trial does not draw."""


class Peer:
    """A way to search. `ask` gives a trial's number and parameters, or None at the end; `report` an evaluation, and
    whether the trial goes on; `end` the end of a trial that does not."""

    def __init__(self, surface: Surface, seed: int, trials: int, folder: Path) -> None:
        self.surface, self.seed, self.trials, self.folder = surface, seed, trials, folder
        self.evaluate_at: list[int] = []
        self.seconds: list[float] = []
        """CPU seconds of each suggestion."""
        self.setup()

    def setup(self) -> None: ...
    def ask(self) -> tuple[int, Mapping[str, Any]] | None:
        raise NotImplementedError

    def report(self, number: int, step: int, loss: float, done: bool) -> bool:
        raise NotImplementedError


class Tuner(Peer):
    """tuner's own study and judge."""

    sampler = "tpe"
    scheduler: Mapping[str, Any] = {"kind": "asha"}

    def setup(self) -> None:
        from tuner.config.sections import Search
        from tuner.contract import EVAL_LOSS
        from tuner.scheduling.algorithms import make_algorithm, registered
        from tuner.scheduling.judge import Judge
        from tuner.scheduling.ladder import make_ladder
        from tuner.study.study import Study

        settings = _scheduler(dict(self.scheduler))
        spacing = registered(settings).spacing(settings)
        ladder = make_ladder(
            self.surface.table.budget, grace_period=spacing.grace_period if spacing else None,
            reduction_factor=spacing.reduction_factor if spacing else None, warmup=0.03, eval_every=0.1,
        )  # fmt: skip
        self.evaluate_at = [math.ceil(share * ladder.max_t - 1e-9) for share in ladder.evaluate_at]
        self.judge = Judge(make_algorithm(settings, ladder, EVAL_LOSS))
        sampler = Search.model_validate({"sampler": self.sampler}).sampler
        self.study = Study(
            self.folder / "study.journal", name="replay", space=self.surface.table.space, sampler=sampler,
            num_trials=self.trials, seed=self.seed, recipe=self.surface.table.space.recipe(RECIPE).params,
        )  # fmt: skip
        self.curves: dict[int, list[Any]] = {}

    def ask(self) -> tuple[int, Mapping[str, Any]] | None:
        suggestion = self.study.ask()
        return None if suggestion is None else (suggestion.number, {**RECIPE, **suggestion.params})

    def report(self, number: int, step: int, loss: float, done: bool) -> bool:
        from tuner.scheduling.algorithms import Candidate
        from tuner.scheduling.rules import Reading

        value = None if loss >= WORST else loss
        curve = self.curves.setdefault(number, [])
        curve.append(Reading(step, math.nan if value is None else value))
        self.study.report(number, step, value)
        decision = self.judge.decide(Candidate(number, curve, finished=done, spared=number == 0))
        if decision.verdict is not None:
            values = [r.value for r in curve if r.value is not None and math.isfinite(r.value)]
            self.study.tell(number, decision.verdict, min(values) if values else None)
        return decision.goes_on


def _scheduler(given: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter

    from tuner.config.sections import Scheduler

    return TypeAdapter(Scheduler).validate_python(given)


class OptunaPeer(Peer):
    """Optuna's own loop, TPE with its defaults, and one of its pruners."""

    def sampler(self) -> Any:
        import optuna

        return optuna.samplers.TPESampler(seed=self.seed)

    def pruner(self) -> Any:
        import optuna

        return optuna.pruners.MedianPruner()

    def setup(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        budget = self.surface.table.budget
        self.evaluate_at = [budget * tenth // 10 for tenth in range(1, 11)]
        self.study = optuna.create_study(sampler=self.sampler(), pruner=self.pruner())
        self.running: dict[int, Any] = {}

    def ask(self) -> tuple[int, Mapping[str, Any]] | None:
        trial = self.study.ask()
        self.running[trial.number] = trial
        return trial.number, {**RECIPE, **self.surface.table.space.suggest(trial)}

    def report(self, number: int, step: int, loss: float, done: bool) -> bool:
        import optuna

        trial = self.running[number]
        if loss >= WORST:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return False
        trial.report(loss, step)
        if done:
            self.study.tell(trial, loss)
            return False
        if trial.should_prune():
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return False
        return True


class RayTune(OptunaPeer):
    """OptunaSearch and ASHAScheduler with their defaults, by their rules: a stopped trial is stored complete."""

    def setup(self) -> None:
        super().setup()
        from tuner.contract import EVAL_LOSS
        from tuner.scheduling.algorithms.asha import Asha
        from tuner.scheduling.algorithms.base import AlgorithmContext
        from tuner.scheduling.judge import Judge

        unit = self.surface.table.budget // 10  # a report is one training_iteration
        self.judge = Judge(Asha(AlgorithmContext(EVAL_LOSS, 10 * unit), grace_period=unit, reduction_factor=4))

    def report(self, number: int, step: int, loss: float, done: bool) -> bool:
        from tuner.scheduling.algorithms import Candidate
        from tuner.scheduling.rules import Reading

        trial = self.running[number]
        trial.report(loss, step)
        decision = self.judge.decide(Candidate(number, [Reading(step, loss)], finished=done))
        if not decision.goes_on:
            self.study.tell(trial, loss)
        return decision.goes_on


def _peer(base: type[Peer], **attributes: Any) -> type[Peer]:
    return type("Peer", (base,), attributes)


def _pruned_by(name: str) -> Callable[[Any], Any]:
    def make(self: Any) -> Any:
        import optuna

        budget = self.surface.table.budget
        if name == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=budget // 10, max_resource=budget)
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=budget // 10)

    return make


def _random(self: Any) -> Any:
    import optuna

    return optuna.samplers.RandomSampler(seed=self.seed)


def _nop(self: Any) -> Any:
    import optuna

    return optuna.pruners.NopPruner()


PEERS: dict[str, type[Peer]] = {
    "rungs": _peer(Tuner, sampler="rungs"),
    "tpe": Tuner,
    "random_asha": _peer(Tuner, sampler="random"),
    "random": _peer(OptunaPeer, sampler=_random, pruner=_nop),
    "optuna_tpe": _peer(OptunaPeer, pruner=_nop),
    "optuna_tpe_median": OptunaPeer,
    "optuna_tpe_hyperband": _peer(OptunaPeer, pruner=_pruned_by("hyperband")),
    "optuna_tpe_halving": _peer(OptunaPeer, pruner=_pruned_by("halving")),
    "ray_tune": RayTune,
}
"""Ways to search by name: tuner with its samplers, and others."""
