"""A listener or tracker that raises is dropped, and the search goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos import invariants
from tests.chaos.faults import Count
from tuner.driver.session import Outcome
from tuner.results.ledger import Event, Kind

pytestmark = pytest.mark.chaos


def test_a_listener_that_raises(ray: None, toy: Callable[..., Outcome], fault: Count) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        if event.event is Kind.EVALUATION:
            raise RuntimeError("nobody is there")

    outcome = toy([broken, heard.append], search__num_trials=3)
    assert outcome.exit_code == 0 and heard[-1].event is Kind.FINISHED
    invariants.check(outcome.path, num_trials=3, exit_code=0)
    fault("a listener that raises")


def test_a_row_that_cannot_be_made(
    ray: None, toy: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, fault: Count
) -> None:
    """Ray refuses it: what is in the place of the task's function is built in. Not `print`: Ray puts a
    function of its own in its place as soon as it prints what a process of its says."""
    from tuner.watch import dashboard_rows

    monkeypatch.setattr(dashboard_rows, "APPEARS_AFTER_S", 0.0)
    monkeypatch.setattr(dashboard_rows, "trial", len)
    outcome = toy(search__num_trials=2, train__pace=0.3)
    assert outcome.exit_code == 0
    log = (outcome.path / "logs" / "driver.log").read_text()
    assert log.count("a row of the Ray dashboard failed") == 1
    fault("a row of the dashboard that cannot be made")
