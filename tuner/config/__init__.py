"""What the user wrote, understood: YAML in, a checked `Experiment` out. Imports neither torch, ray nor optuna.

document      safe YAML with the line of every key
layers        values from several places, each with its origin
sections      the models of `search`, `scheduler`, `resources` and `run`
moved         settings that stood elsewhere in earlier versions
space_source  finds and reads what `search.space` names
own_program   what `run.program` names: found, tried in a process of its own, looked at
paths         relative paths, resolved and checked
translate     pydantic's findings in our words; `words` puts a schema into words
schema        JSON Schema for editors
flags         command line flags that are settings
experiment    all of it together
"""

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
    NoScheduler,
    Qmc,
    Random,
    Resources,
    Run,
    Sampler,
    Scheduler,
    Search,
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
    "NoScheduler",
    "Qmc",
    "Random",
    "Resources",
    "Run",
    "Sampler",
    "Scheduler",
    "Search",
    "SpaceSource",
    "Tpe",
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
