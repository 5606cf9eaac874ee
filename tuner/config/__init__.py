"""Reads and checks what the user wrote: YAML in, an `Experiment` out. Imports none of torch, ray and optuna.

document      safe YAML with the line of every key
layers        merges values from several places, and keeps where each was written
amounts       reads `20M`, `2h` and `0.5%`
sections      the models of `search`, `scheduler`, `resources` and `run`
moved         settings that earlier versions had in another section
space_source  finds and reads what `search.space` names
own_program   finds and checks the class that `run.program` names; it is imported in a process of its own first
paths         resolves and checks relative paths
translate     turns pydantic's findings into InputErrors
words         says in words what a JSON Schema accepts
schema        JSON Schema for editors
flags         command line flags that are settings
experiment    merges and checks all of it
"""

from tuner.config import amounts
from tuner.config.experiment import (
    Experiment,
    demo_path,
    dump_resolved,
    load_experiment,
    load_resolved,
)
from tuner.config.flags import FLAGS
from tuner.config.own_program import find_allowed, typed_program
from tuner.config.schema import experiment_schema, space_schema
from tuner.config.sections import (
    Asha,
    Cmaes,
    Diverged,
    Flatline,
    Gp,
    Grid,
    NoMoreGain,
    NoScheduler,
    Qmc,
    Random,
    Resources,
    Run,
    Rungs,
    Sampler,
    Scheduler,
    Search,
    SearchBudget,
    Tpe,
)
from tuner.config.space_source import SpaceSource, read_space, shipped_spaces

__all__ = [
    "FLAGS",
    "Asha",
    "Cmaes",
    "Diverged",
    "Experiment",
    "Flatline",
    "Gp",
    "Grid",
    "NoMoreGain",
    "NoScheduler",
    "Qmc",
    "Random",
    "Resources",
    "Run",
    "Rungs",
    "Sampler",
    "Scheduler",
    "Search",
    "SearchBudget",
    "SpaceSource",
    "Tpe",
    "amounts",
    "demo_path",
    "dump_resolved",
    "experiment_schema",
    "find_allowed",
    "load_experiment",
    "load_resolved",
    "read_space",
    "shipped_spaces",
    "space_schema",
    "typed_program",
]
