"""A preparation that takes long says how far it is, where the search is shown."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from tests.programs.telling import SECONDS
from tuner.driver.session import Outcome
from tuner.report import counter
from tuner.report.live import LiveView
from tuner.report.plain import PlainView


class Shown(LiveView):
    """A live view that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.counted: list[str] = []

    def count(self, doing: str) -> None:
        super().count(doing)
        picture = "".join(text for row in self.picture(120, 20) for text, _ in row)
        self.counted.append(doing)
        assert (doing.removesuffix("\x1b[31m") in picture) if doing else ("counting" not in picture)


def test_how_far_it_is(toy: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, "6")  # Ray runs already, so that some of it is left once the search waits
    monkeypatch.setattr(counter, "FIRST_S", 0.1)
    log, shown = io.StringIO(), Shown()
    done = toy(
        run__program="tests.programs.telling:Telling", search__num_trials=1,
        listeners=[PlainView(stream=log), shown],
    )  # fmt: skip
    assert done.exit_code == 0
    lines = [line for line in log.getvalue().splitlines() if line.startswith("counting: 0.")]
    assert 1 <= len(lines) <= 7 and not any("\x1b" in line for line in lines)
    *counted, last = shown.counted
    assert len(counted) >= len(lines) and last == ""
