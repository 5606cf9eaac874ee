"""The sampler by itself, in studies of Optuna's own: any pruner, no state, conditions, bounds."""

from __future__ import annotations

import math
import statistics
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from tuner.study.rungs import RungSampler

STEPS = (1, 3, 9, 27)
RATE = FloatDistribution(1e-5, 1e-1, log=True)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def loss(params: dict[str, Any], step: int) -> float:
    """A valley in the logarithm of `rate`, 0.1 deep in `rank`, that a curve approaches from above."""
    off = math.log10(params["rate"]) + 3
    return 1 + 0.3 * off * off + 0.1 * abs(math.log2(params["rank"]) - 4) / 4 + math.exp(-step / 6)


def suggested(trial: optuna.Trial) -> dict[str, Any]:
    params = {
        "rate": trial.suggest_float("rate", 1e-5, 1e-1, log=True),
        "rank": trial.suggest_categorical("rank", [2, 4, 8, 16, 32, 64]),
        "mode": trial.suggest_categorical("mode", ["plain", "decayed"]),
    }
    if params["mode"] == "decayed":
        params["decay"] = trial.suggest_float("decay", 0.0, 0.1)
    return params


def objective(trial: optuna.Trial) -> float:
    params = suggested(trial)
    for step in STEPS:
        trial.report(loss(params, step), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss(params, STEPS[-1])


def stopped(rate: float, reached: int = 1, value: float | None = None, **more: Any) -> optuna.trial.FrozenTrial:
    """A trial over `rate` alone that was stopped at a rung."""
    params = {"rate": rate, "rank": 16}
    values = {step: loss(params, step) if value is None else value for step in STEPS if step <= reached}
    return create_trial(
        state=TrialState.PRUNED, params={"rate": rate}, distributions={"rate": RATE}, intermediate_values=values, **more
    )


def best(sampler: Any, pruner: Any, trials: int) -> float:
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=trials)
    return study.best_value


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.NopPruner(),
        optuna.pruners.MedianPruner(n_startup_trials=3),
        optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27),
    ],
    ids=lambda pruner: type(pruner).__name__,
)
def test_with_any_pruner_it_comes_closer_than_chance(pruner: Any) -> None:
    # Hyperband shows a sampler the trials of one of its four brackets alone
    trials = 60 if isinstance(pruner, optuna.pruners.HyperbandPruner) else 20
    ours = [best(RungSampler(seed=seed), pruner, trials) for seed in range(2)]
    chance = [best(optuna.samplers.RandomSampler(seed=seed), pruner, trials) for seed in range(2)]
    assert statistics.mean(ours) < statistics.mean(chance)
    assert statistics.mean(ours) < 1.005 + math.exp(-27 / 6), "the best there is, and half a percent"


def test_it_learns_where_the_best_is_from_trials_that_were_all_stopped_at_the_first_rung() -> None:
    study = optuna.create_study(sampler=RungSampler(seed=0))
    study.add_trials([stopped(10**-power) for power in (1.2, 1.8, 2.5, 3.4, 4.1, 4.8)])
    rates = [study.ask({"rate": RATE}).params["rate"] for _ in range(4)]
    assert all(1e-4 < rate < 1e-2 for rate in rates)
    assert len(set(rates)) == 4, "trials that run are believed, so that no two workers train the same"


def test_a_value_that_rises_is_maximized() -> None:
    study = optuna.create_study(sampler=RungSampler(seed=0), direction="maximize")
    for power in (1.2, 1.8, 2.5, 3.4, 4.1, 4.8):
        study.add_trial(stopped(10**-power, value=-loss({"rate": 10**-power, "rank": 16}, 1)))
    assert 1e-4 < study.ask({"rate": RATE}).params["rate"] < 1e-2


def test_it_has_no_state() -> None:
    one = optuna.create_study(sampler=RungSampler(seed=7))
    one.optimize(objective, n_trials=12)
    for known in (3, 8, 11):
        again = optuna.create_study(sampler=RungSampler(seed=7))
        again.add_trials(one.trials[:known])
        assert suggested(again.ask()) == one.trials[known].params
    other = optuna.create_study(sampler=RungSampler(seed=8))
    other.add_trials(one.trials[:11])
    assert suggested(other.ask()) != one.trials[11].params


@pytest.mark.parametrize(
    "bound", [{"system_attrs": {"constraints:trainable": 1.0}}, {}], ids=["a violated constraint", "no value"]
)
def test_a_region_that_diverges_is_left(bound: Any) -> None:
    """Losses fall towards high rates, and beyond 1e-2 every trial diverges, or runs out of memory."""
    study = optuna.create_study(sampler=RungSampler(seed=0, n_startup_trials=4))
    study.add_trials([stopped(10**-power, value=1 + power / 10) for power in (2.4, 2.8, 3.3, 3.9, 4.6)])
    first = study.ask({"rate": RATE})
    assert first.params["rate"] > 1e-2, "as long as it does not know"
    study.tell(first, state=TrialState.FAIL)
    reached = 1 if bound else 0
    study.add_trials([stopped(10**-power, reached, 0.5, **bound) for power in (1.1, 1.3, 1.6, 1.9)])
    assert study.ask({"rate": RATE}).params["rate"] < 1.2e-2


def test_failed_trials_count_for_nothing() -> None:
    trials = [stopped(10**-power) for power in (1.2, 1.8, 2.5, 3.4, 4.1, 4.8)]
    one, other = (optuna.create_study(sampler=RungSampler(seed=0)) for _ in range(2))
    failed = create_trial(state=TrialState.FAIL, params={"rate": 1e-3}, distributions={"rate": RATE})
    one.add_trials([*trials, failed])
    other.add_trials([*trials, create_trial(state=TrialState.FAIL)])
    assert one.ask({"rate": RATE}).params == other.ask({"rate": RATE}).params


def test_a_parameter_is_there_only_where_its_condition_holds() -> None:
    study = optuna.create_study(sampler=RungSampler(seed=1))
    study.optimize(objective, n_trials=20)
    assert {"decay" in trial.params for trial in study.trials} == {True, False}
    for trial in study.trials:
        assert ("decay" in trial.params) == (trial.params["mode"] == "decayed")


def test_a_finite_space_is_walked_without_repeats() -> None:
    space = {"rank": CategoricalDistribution([2, 4, 8, 16]), "mode": CategoricalDistribution(["a", "b"])}
    study = optuna.create_study(sampler=RungSampler(seed=0, n_startup_trials=3))
    for _ in range(8):
        trial = study.ask(space)
        study.tell(trial, math.log2(trial.params["rank"]))
    points = {(trial.params["rank"], trial.params["mode"]) for trial in study.trials}
    assert len(points) == 8
    assert study.ask(space).params["rank"] in (2, 4, 8, 16), "nothing is left, and it suggests nevertheless"


def test_nothing_reported_yet_starts_evenly() -> None:
    study = optuna.create_study(sampler=RungSampler(seed=0))
    rates = sorted(math.log10(study.ask({"rate": RATE}).params["rate"]) for _ in range(16))
    apart = [high - low for low, high in zip([-5.0, *rates], [*rates, -1.0], strict=True)]
    assert max(apart) < 1.0


def test_one_objective_and_sound_arguments() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=RungSampler(seed=0))
    with pytest.raises(ValueError, match="one objective"):
        study.ask({"rate": RATE})
    with pytest.raises(ValueError, match="n_startup_trials must be at least 1 but got 0"):
        RungSampler(n_startup_trials=0)
    with pytest.raises(ValueError, match="max_resource must be above 0"):
        RungSampler(max_resource=0)
