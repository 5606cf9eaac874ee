"""The toy as a process group: the last process misbehaves, and the others wait for it in a collective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.programs.toy import Toy, ToySettings, Train
from tuner.contract import Assignment, Evaluation, Group, Preparation, Setup


class Crew(Toy):
    """See the module."""

    @classmethod
    def spreads(cls, settings: ToySettings, params: Mapping[str, Any], group: Group) -> str | None:
        size = params.get("batch_size", settings.train.batch_size)
        return f"batch_size {size} is no multiple of {group.size}" if size % group.size else None

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation, group: Group) -> None:
        super().__init__(settings, preparation)
        self._group = group
        if group.rank < group.size - 1:
            self._settings = self._settings.model_copy(
                update={name: Train.model_fields[name].get_default() for name in ("behaviour", "killed")}
                | {"misbehaving": [], "each": {}}
            )

    def start(self, assignment: Assignment) -> Setup:
        if not self._group.leads:
            own = Path(assignment.folder, "beside")
            own.mkdir()
            resume = assignment.resume and replace(
                assignment.resume, folders=tuple(str(Path(folder, "beside")) for folder in assignment.resume.folders)
            )
            assignment = replace(assignment, folder=str(own), resume=resume)
        return super().start(assignment)

    def step(self) -> Evaluation:
        import torch
        from torch import distributed

        evaluation = super().step()
        together = torch.tensor([evaluation.step])
        distributed.all_reduce(together)
        assert together.item() == self._group.size * evaluation.step, "another process is elsewhere"
        return evaluation
