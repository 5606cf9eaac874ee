"""A toy whose trials are made of a file, as a real program's trials are made of a base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Preparation

FILE = "TUNER_TEST_MADE_OF"
"""Environment variable: the file."""


class Made(Toy):
    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        part = {"source": os.environ[FILE], "files": {"weights": Path(os.environ[FILE]).read_text()}}
        return Preparation(folder=str(cache), tokens=100_000, facts={"rows": 1000, "made_of": {"base": part}})
