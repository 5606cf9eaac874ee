"""The toy as a group's program sees itself where the group is one process: no exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Group, Preparation


class Ungrouped(Toy):
    """See the module."""

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation, group: Group) -> None:
        super().__init__(settings, preparation)
