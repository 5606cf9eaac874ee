"""How many trials run at a time, and on what."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.config import load_experiment
from tuner.config.sections import Resources
from tuner.contract import InputError
from tuner.driver.plan import Plan, make_plan
from tuner.ray_cluster.resources import Allocation, decide

CPUS, GPUS = {"CPU": 2.0}, {"CPU": 32.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("cluster", "asked", "expected"),
    [
        (CPUS, {}, Allocation(1, 0.0, 2)),
        (GPUS, {}, Allocation(1, 1.0, 8)),
        (GPUS, {"gpus_per_trial": 0.5}, Allocation(1, 0.5, 16)),
        (GPUS, {"gpus_per_trial": 2.0}, Allocation(1, 2.0, 4, processes=2)),
        (GPUS, {"gpus_per_trial": 3.0}, Allocation(1, 3.0, 2, processes=3)),
        (GPUS, {"workers_per_trial": 4}, Allocation(1, 4.0, 2, processes=4)),
        (GPUS, {"workers_per_trial": 4, "gpus_per_trial": 0.0}, Allocation(1, 0.0, 16, processes=4)),
        (GPUS, {"gpus_per_trial": 2.0, "max_concurrent_trials": 3}, Allocation(1, 2.0, 3, processes=2)),
        (CPUS, {"workers_per_trial": 2, "cpus_per_trial": 2.0}, Allocation(2, 0.0, 1, processes=2)),
    ],
)
def test_workers(cluster: dict[str, float], asked: Any, expected: Allocation) -> None:
    assert decide(Resources(**asked), cluster, 16) == expected


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(InputError, match="asks for 16 GPUs and 1 CPUs, and Ray has 8 and 32"):
        decide(Resources(gpus_per_trial=16), GPUS, 16)
    with pytest.raises(InputError) as told:
        decide(Resources(gpus_per_trial=2), CPUS, 16)
    assert "resources.workers_per_trial: 2" in told.value.remedy


SPACE = {"parameters": {"batch_size": {"type": "int", "low": 2, "high": 8}}}


def planned(program: str, **settings: Any) -> Plan:
    flags = {"run.program": f"tests.programs.{program}", "search.space": SPACE}
    return make_plan(load_experiment(None, (), flags | {name.replace("__", "."): v for name, v in settings.items()}))


def test_what_several_processes_cannot_train_is_said_before_anything_starts() -> None:
    assert planned("crew:Crew", resources__workers_per_trial=2).group.size == 2
    with pytest.raises(InputError, match="trains a trial in one process"):
        planned("toy:Toy", resources__workers_per_trial=2)
    with pytest.raises(InputError, match="batch_size 2 is no multiple of 3"):
        planned("crew:Crew", resources__workers_per_trial=3, train__batch_size=9)
    plan = planned("crew:Crew", resources__workers_per_trial=2)
    assert plan.spreads({"batch_size": 4}) is None
    assert "batch_size 5 is no multiple of 2" in str(plan.spreads({"batch_size": 5}))


def test_packing_is_proposed_by_nobody_who_does_not_know_of_a_gpu() -> None:
    """A plan knows that trials might be packed; a search says so where trials have GPUs."""
    plan = make_plan(load_experiment(None, (), {}))
    assert plan.unasked and not [note for note in plan.notes if "per-gpu" in note]
    asked = {"train.use_dora": True}, {"resources.trials_per_gpu": "auto"}, {"search.num_trials": 1}
    assert not any(make_plan(load_experiment(None, (), flags)).unasked for flags in asked)


def test_the_heaviest_trial_has_the_most_of_all_that_takes_memory() -> None:
    """Rank, batch, dropout, whose masks are kept for the way back, and adapters on the tower."""
    plan = make_plan(load_experiment(None, (), {"search.space": "qlora"}))
    assert plan.heaviest == {"lora_r": 64, "effective_batch_size": 64, "lora_dropout": 0.05}
    plan = make_plan(load_experiment(None, (), {"search.space": "vlm"}))
    assert plan.heaviest == {"lora_r": 64, "effective_batch_size": 32, "vision": "adapted"}
