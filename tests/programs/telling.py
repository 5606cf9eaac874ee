"""A toy that takes its time to prepare, and says how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Preparation, Tell, silent

SECONDS = "TUNER_TEST_PREPARES_FOR"
"""Environment variable: how long it takes."""


class Telling(Toy):
    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path, tell: Tell = silent) -> Preparation:
        seconds = float(os.environ.get(SECONDS, "1"))
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            tell(f"counting: {1 - left / seconds:.3f} of 1\x1b[31m")
            time.sleep(0.001)
        return Preparation(folder=str(cache), tokens=100_000, facts={"rows": 1000})
