"""The interface between the search (on the driver) and a program (in a worker).

facts.py      what a trial is told, what it answers, how it can end
errors.py     how a program refuses
objective.py  the numbers that a search makes better
card.py       what a program says of its adapters
look.py       what a program shows of its rows
serving.py    what a program says of an adapter that it has written for a server
scoring.py    adapters side by side on rows that no trial learned from
base_look.py  what a program shows of a base
retraining.py what a program says of training one point again
telling.py    how far a call of a program is that takes long
engine.py     what trains packed trials
program.py    the base class of a program
loading.py    finds a program by its name, and adapts one of version 0.1
starting.py   the command of another process of Python

The driver samples, schedules and judges; a program trains and measures. They share this package and nothing else.
It imports the standard library alone, so importing it costs neither side anything.
"""

from tuner.contract.base_look import BaseLook, Table
from tuner.contract.card import Card
from tuner.contract.engine import PackedEngine
from tuner.contract.errors import Elsewhere, Fault, InputError, Unpackable
from tuner.contract.facts import (
    ALIVE,
    ALONE,
    CHECKPOINT_REQUEST,
    COMPANIONS,
    LEAVE,
    STATE,
    SUMS,
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
    TrialSize,
    Verdict,
)
from tuner.contract.loading import PROGRAMS, as_engine, as_program, load_program
from tuner.contract.look import AtLength, Bin, Finding, Look, LookRequest, Piece, RowSet, ShownRow
from tuner.contract.objective import EVAL_LOSS, Objective, checked_objectives, compared_by
from tuner.contract.program import Parameter, Program, Runner, laid
from tuner.contract.retraining import Retraining
from tuner.contract.scoring import MODEL, Scored, ScoredRow, ScoreRequest, Scores
from tuner.contract.serving import Served
from tuner.contract.starting import module_command
from tuner.contract.telling import Tell, silent

__all__ = [
    "ALIVE",
    "ALONE",
    "CHECKPOINT_REQUEST",
    "COMPANIONS",
    "EVAL_LOSS",
    "LEAVE",
    "MODEL",
    "PROGRAMS",
    "STATE",
    "SUMS",
    "Assignment",
    "AtLength",
    "BaseLook",
    "Bin",
    "Budget",
    "Card",
    "Elsewhere",
    "Evaluation",
    "Fault",
    "Finding",
    "Fit",
    "Group",
    "InputError",
    "Look",
    "LookRequest",
    "Objective",
    "PackedEngine",
    "Parameter",
    "Piece",
    "Preparation",
    "Program",
    "Reason",
    "Resume",
    "Retraining",
    "RowSet",
    "Runner",
    "ScoreRequest",
    "Scored",
    "ScoredRow",
    "Scores",
    "Served",
    "Setup",
    "ShownRow",
    "Status",
    "Table",
    "Tell",
    "TrialSize",
    "Unpackable",
    "Verdict",
    "as_engine",
    "as_program",
    "checked_objectives",
    "compared_by",
    "laid",
    "load_program",
    "module_command",
    "silent",
]
