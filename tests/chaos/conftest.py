"""One real Ray for a module, and a look at what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.chaos import invariants
from tests.integration.conftest import ray, toy  # noqa: F401  fixtures


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Of what a module starts in this process, its Ray above all, nothing outlives it."""
    before = set(psutil.Process().children(recursive=True))
    yield
    invariants.check_processes(set(psutil.Process().children(recursive=True)) - before)
    invariants.check_processes_later()
