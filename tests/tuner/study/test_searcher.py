"""What the searcher tells Ray when there are no more trials."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.search import Searcher

from tuner.study.searcher import StudySearcher


class Source:
    """Suggests the configurations that are left; over when none is."""

    def __init__(self, *left: dict[str, Any]) -> None:
        self.left = list(left)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None

    @property
    def over(self) -> bool:
        return not self.left

    def lost(self, trial_id: str, error: bool) -> None:
        raise AssertionError("nothing is lost here")


def test_a_search_ends_when_its_source_is_over() -> None:
    searcher = StudySearcher(Source({"lr": 1.0}))
    assert searcher.suggest("a") == {"lr": 1.0}
    assert searcher.suggest("b") == Searcher.FINISHED


def test_workers_may_be_kept_after_the_last_ending() -> None:
    source = Source()
    searcher = StudySearcher(source, ends_after_s=0.3)
    assert searcher.suggest("a") is None
    source.left.append({"lr": 1.0})
    assert searcher.suggest("a") == {"lr": 1.0}, "a trial that was added meanwhile runs"
    assert searcher.suggest("b") is None, "the seconds count from the last ending"
    time.sleep(0.35)
    assert searcher.suggest("b") == Searcher.FINISHED
