"""One real Ray for each module, and a check that no process of it is left."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.chaos import invariants
from tests.integration.conftest import toy  # noqa: F401  a fixture
from tuner.ray_cluster.session import ray_session


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Checks that no process that a module starts below this one, its Ray above all, outlives the module."""
    before = set(psutil.Process().children(recursive=True))
    yield
    invariants.check_processes(set(psutil.Process().children(recursive=True)) - before)
    invariants.check_processes_later()


@pytest.fixture(scope="module")
def ray(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The Ray in which `toy` runs its searches."""
    with ray_session(None, tmp_path_factory.mktemp("ray") / "driver.log"):
        yield
