"""Checks that torch can use the GPU that this process was given."""

from __future__ import annotations

import os

import torch

from trainables.hub.refusals import first_line
from tuner.contract import Fault, Reason

_NONE = ("", "-1")
_GIVEN = "CUDA_VISIBLE_DEVICES"


def require() -> None:
    """Raises Fault (`config`) where torch cannot use the GPU that Ray or the user has given to this process.

    torch says that there is no GPU wherever it cannot use one: with a driver that is too old, in a build for the CPU,
    in a container without the driver. A trial would then train on the CPU, hundreds of times slower, without a message.
    """
    given = os.environ.get(_GIVEN)
    if given is None or given.strip() in _NONE or torch.cuda.is_available():
        return
    raise Fault(
        Reason.CONFIG,
        f"this process was given the GPU {given} ({_GIVEN}), and torch cannot use it: {_why()}",
        "look with: python -m tuner doctor; to train on the CPU, unset CUDA_VISIBLE_DEVICES, or set "
        "resources.gpus_per_trial to 0",
    )


def _why() -> str:
    """What torch says when it is made to use the GPU."""
    try:
        torch.cuda.init()
    except Exception as error:  # AssertionError of a build for the CPU, RuntimeError of the driver
        return first_line(error)
    return "it sees none"
