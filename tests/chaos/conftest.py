"""One real Ray for a module, and a table of the faults that were survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.conftest import ray, toy  # noqa: F401  fixtures

_FAULTS: Counter[str] = Counter()


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Counts a fault that a test brought about; it stands in the table when the test has passed."""
    met: Counter[str] = Counter()

    def count(name: str, times: int = 1) -> None:
        met[name] += times

    yield count
    report = getattr(request.node, "report", None)
    if report is not None and report.passed:
        _FAULTS.update(met)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.report = report  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _FAULTS:
        return
    terminalreporter.section("faults survived, with every invariant held")
    width = max(len(name) for name in _FAULTS)
    for name, times in sorted(_FAULTS.items()):
        terminalreporter.write_line(f"{name:<{width}}  {times:>4}")
    terminalreporter.write_line(f"{'in all':<{width}}  {sum(_FAULTS.values()):>4}")
