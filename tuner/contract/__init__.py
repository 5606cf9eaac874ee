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
from tuner.contract.objective import Objective
from tuner.contract.program import PROGRAMS, Parameter, Program, load_program

METRIC = "eval_loss"
"""The one number a trial is judged by: mean validation loss, lower is better."""

__all__ = [
    "ALIVE",
    "ALONE",
    "CHECKPOINT_REQUEST",
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
    "load_program",
]
