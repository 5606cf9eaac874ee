"""The toy as a program for process groups, which makes no exchange in a group of one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Group, Preparation


class Ungrouped(Toy):
    """See the module."""

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation, group: Group) -> None:
        super().__init__(settings, preparation)
