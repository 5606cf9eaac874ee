"""A program that trains with some batch sizes only, and knows it once the data is prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import InputError, Preparation, Program


class Choosy(Toy, Program):
    """Refuses a batch size of 32."""

    @classmethod
    def check_values(
        cls, settings: Any, values: Mapping[str, Sequence[Any]], preparation: Preparation
    ) -> tuple[str, ...]:
        assert preparation.folder
        if 32 in values.get("batch_size", ()):
            raise InputError("batch_size 32 fits no row", where="search.space", remedy="take it out")
        return (f"checked {sorted(values)}",)
