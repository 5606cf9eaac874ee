"""How many trials at a time, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.contract import InputError


@dataclass(frozen=True)
class Allocation:
    """What runs at a time. cpus, gpus: what one worker holds. workers: those that train. slots: trials that each of
    them runs at a time; above 1 it is an engine that packs them. processes: that each of them trains a trial with."""

    cpus: float
    gpus: float
    workers: int
    slots: int = 1
    processes: int = 1

    @property
    def trials(self) -> int:
        """How many trials run at a time."""
        return self.workers * self.slots

    def settled(self, slots: int) -> Allocation:
        """With no more slots a worker than there is room for, or than pay."""
        return replace(self, slots=min(self.slots, slots))


SLOT_CPUS = 0.01
"""What a trial's actor holds when others do its work: an engine, or a group of processes."""
AUTO_SLOTS = 32
"""The most that `auto` tries: at batch 1 a 1.5B base fills an H200 with 16."""


def decide(
    resources: Any,
    cluster: Mapping[str, float],
    num_trials: int,
    trials_per_gpu: int | str = 1,
    *,
    learns: bool = True,
) -> Allocation:
    """Works out the workers from the settings (`resources:`) and what the cluster has ({"CPU": 2.0, "GPU": 1.0}).

    trials_per_gpu: slots of a worker, each on its GPU, or on its share of the CPUs where there is none; with "auto" the
    most that are worth trying. learns: the sampler draws from what it has seen; it would know nothing if all trials
    ran at once, so "auto" runs at most half of them.

    Said or not, `max_concurrent_trials` is always set: left alone, Ray keeps a single trial pending, and one worker
    busy. Raises InputError where not even one trial fits.
    """
    have_gpus, have_cpus = cluster.get("GPU", 0.0), cluster.get("CPU", 0.0)
    processes = resources.processes
    gpus = resources.gpus_per_trial
    if gpus is None:
        gpus = float(processes) if have_gpus else 0.0
    fits = [have_cpus // resources.cpus_per_trial] if resources.cpus_per_trial else []
    fits += [have_gpus // gpus] if gpus else []
    most = max(int(min(fits)) if fits else 1, resources.scale_to or 0)
    if most < 1:
        raise InputError(
            f"a trial asks for {gpus:g} GPUs and {resources.cpus_per_trial:g} CPUs, and Ray has {have_gpus:g} and "
            f"{have_cpus:g}",
            where="resources.gpus_per_trial, resources.cpus_per_trial",
            expected="a trial that fits",
            remedy="ask for less, join a larger cluster, or set resources.scale_to where an autoscaler adds nodes"
            + (f"; without GPUs, resources.workers_per_trial: {processes}" if gpus > 1 > have_gpus else ""),
        )
    at_once = min(resources.max_concurrent_trials or num_trials, num_trials)
    if trials_per_gpu == "auto":
        at_once = min(at_once, max(1, num_trials // 2)) if learns else at_once
        slots = max(1, min(AUTO_SLOTS, at_once // most))
    else:
        slots = min(int(trials_per_gpu), at_once)
    trials = min(most * slots, at_once)
    return Allocation(resources.cpus_per_trial, gpus, max(1, trials // slots), slots, processes)


def of_type(accelerator_type: str | None) -> dict[str, float]:
    """What has to be asked of Ray to land on a node with such a GPU; a node has one of it, so a thousand may."""
    return {f"accelerator_type:{accelerator_type}": 0.001} if accelerator_type else {}
