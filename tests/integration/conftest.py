"""One real Ray for the tests of a module that share it, shut down at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.config import load_experiment
from tuner.execution.cluster import ray_session
from tuner.execution.search import Outcome, run_search

TOY = "tests.programs.toy:Toy"
SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(None, tmp_path_factory.mktemp("ray") / "driver.log"):
        yield


@pytest.fixture
def toy(ray: None, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a toy search named "toy" in the test's folder; keywords are dotted settings with "__" for the dot."""

    def run(listeners: Any = (), **settings: Any) -> Outcome:
        flags = {"run.program": TOY, "run.name": "toy", "run.storage_path": str(tmp_path), "search.space": SPACE}
        flags |= {name.replace("__", "."): value for name, value in settings.items()}
        return run_search(load_experiment(None, (), flags), listeners)

    return run
