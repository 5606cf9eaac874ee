"""A toy that puts a secret into every text that a program can write."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Assignment, Card, Evaluation, Fault, Preparation, Reason, Setup

SECRETS = (
    "hf_" + "xY7" * 12,
    "AKIAQ3EGRJXXW5EXAMPL",
    "wandb_v1_" + "Zz9Q" * 12,
    "ghp_" + "k8J2" * 9,
    "sk-proj-" + "mN4_" * 12,
)
WORD = "LEAKY_API_KEY"
"""The environment variable with a secret that has no recognisable form."""


def leak(what: str) -> str:
    return f"{what}: {' '.join(SECRETS)} {os.environ.get(WORD, '')}"


def leak_everywhere(what: str) -> None:
    print(leak(f"{what}, printed"))
    print(leak(f"{what}, printed as an error"), file=sys.stderr)
    logging.getLogger("leaky").warning(leak(f"{what}, logged"))
    warnings.warn(leak(f"{what}, warned"), stacklevel=1)
    try:
        raise PermissionError(leak(f"{what}, raised"))
    except PermissionError:
        logging.getLogger("leaky").exception("with its traceback")


class Leaky(Toy):
    """See the module."""

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        leak_everywhere("prepare")
        facts = {"rows": 1000, leak("name"): leak("fact"), "nested": [{"x": leak("nested")}]}
        return Preparation(folder=str(cache), tokens=100_000, facts=facts, notes=(leak("note"),))

    @classmethod
    def card(cls, settings: Any, setup: Mapping[str, Any]) -> Card:
        return Card(what=leak("an adapter"), facts=(leak("fact"),), usage=leak("usage"))

    def start(self, assignment: Assignment) -> Setup:
        setup = super().start(assignment)
        leak_everywhere("start")
        if assignment.number == 2:
            raise Fault(Reason.OUT_OF_MEMORY, leak("fault"), leak("remedy"))
        return Setup(
            setup.max_steps, 10, 1000, {**setup.details, "share": leak("share"), leak("detail"): leak("detail")}
        )

    def step(self) -> Evaluation:
        if self._assignment.number == 1:
            raise RuntimeError(leak("error"))
        return super().step()
