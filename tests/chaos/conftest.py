"""One real Ray for a module, and a look at what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.chaos import invariants
from tests.integration.conftest import toy  # noqa: F401  a fixture
from tuner.ray_cluster.session import ray_session


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Of what a module starts in this process, its Ray above all, nothing outlives it."""
    before = set(psutil.Process().children(recursive=True))
    yield
    invariants.check_processes(set(psutil.Process().children(recursive=True)) - before)
    invariants.check_processes_later()


@pytest.fixture(scope="module")
def ray(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """That of `toy`."""
    with ray_session(None, tmp_path_factory.mktemp("ray") / "driver.log"):
        yield
