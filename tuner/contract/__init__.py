"""The narrow seam between the search (driver) and a program (worker).

facts.py      what a trial is told, what it answers, how it can end
errors.py     how a program refuses
objective.py  the numbers that a search makes better
program.py    the class that a program is

The driver samples, schedules and judges; a program trains and measures. They share this package and nothing else.
Standard library only, so either side imports it for free.
"""

from tuner.contract.errors import Elsewhere, Fault, InputError, Unpackable
from tuner.contract.facts import (
    ALIVE,
    ALONE,
    CHECKPOINT_REQUEST,
    STATE,
    Assignment,
    Budget,
    Evaluation,
    Fit,
    Group,
    Preparation,
    Reason,
    Resume,
    Setup,
    Status,
    Verdict,
)
from tuner.contract.objective import EVAL_LOSS, Objective, checked_objectives
from tuner.contract.program import PROGRAMS, Parameter, Program, load_program

METRIC = EVAL_LOSS.name

__all__ = [
    "ALIVE",
    "ALONE",
    "CHECKPOINT_REQUEST",
    "EVAL_LOSS",
    "METRIC",
    "PROGRAMS",
    "STATE",
    "Assignment",
    "Budget",
    "Elsewhere",
    "Evaluation",
    "Fault",
    "Fit",
    "Group",
    "InputError",
    "Objective",
    "Parameter",
    "Preparation",
    "Program",
    "Reason",
    "Resume",
    "Setup",
    "Status",
    "Unpackable",
    "Verdict",
    "checked_objectives",
    "load_program",
]
