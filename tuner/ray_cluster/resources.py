"""Decides how many trials run at a time, and on which resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.contract import InputError


@dataclass(frozen=True)
class Allocation:
    """What runs at a time."""

    cpus: float
    """The CPUs that one worker holds."""
    gpus: float
    """The GPUs that one worker holds."""
    workers: int
    """How many workers train."""
    slots: int = 1
    """How many trials each worker trains at a time; above 1 it is an engine that packs them."""
    processes: int = 1
    """How many processes each worker trains a trial with."""

    @property
    def trials(self) -> int:
        """How many trials run at a time."""
        return self.workers * self.slots

    def settled(self, slots: int) -> Allocation:
        """The same with `slots` slots a worker at most: as many as an engine has settled on."""
        return replace(self, slots=min(self.slots, slots))


SLOT_CPUS = 0.01
"""CPUs that a trial's actor holds where an engine or a group of processes does its work."""
AUTO_SLOTS = 32
"""The most slots a worker that `auto` tries: at batch size 1, 16 trials on a 1.5B base fill an H200."""


def decide(
    resources: Any,
    cluster: Mapping[str, float],
    num_trials: int,
    trials_per_gpu: int | str = 1,
    *,
    learns: bool = True,
) -> Allocation:
    """Works out the workers from the settings (`resources:`) and what the cluster has ({"CPU": 2.0, "GPU": 1.0}).

    trials_per_gpu: slots of each worker, which has a GPU, or a share of the CPUs where there is none; with "auto" the
    most that are worth trying. learns: the sampler learns from earlier trials; it would know none if all trials ran at
    once, so "auto" runs at most half of them at a time.

    The number of trials at a time is always passed on to Ray, set by the user or not: without one, Ray keeps a single
    trial pending, and one worker busy. Raises InputError where not even one trial fits.
    """
    have_gpus, have_cpus = cluster.get("GPU", 0.0), cluster.get("CPU", 0.0)
    processes = resources.processes
    gpus = resources.gpus_per_trial
    if gpus is None:
        gpus = float(processes) if have_gpus else 0.0
    counts = [have_cpus // resources.cpus_per_trial] if resources.cpus_per_trial else []
    counts += [have_gpus // gpus] if gpus else []
    most = max(int(min(counts)) if counts else 1, resources.scale_to or 0)
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
    """The resource to request of Ray for a node with such a GPU. A node has 1 of it, so 1,000 requests of 0.001 fit."""
    return {f"accelerator_type:{accelerator_type}": 0.001} if accelerator_type else {}
