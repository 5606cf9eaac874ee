"""The Ray Tune Searcher: passes on to Ray the trials that the trial manager suggests."""

from __future__ import annotations

import time
from typing import Any, Protocol

from ray.tune.search import Searcher


class Source(Protocol):
    """Where trials come from and where their endings are noted; the driver's trial manager."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of a new trial; None where there is none now, or when `over` never again."""
        ...

    @property
    def over(self) -> bool:
        """Whether no trial will be suggested any more."""
        ...

    def lost(self, trial_id: str, error: bool) -> None:
        """Ray dropped a trial. Does nothing where the trial already has its ending."""
        ...


class StudySearcher(Searcher):
    """Suggests what a Source does. Endings reach the study through the scheduler's verdicts, never through Ray's
    results, because Ray reports a trial stopped at a rung and one that finished in the same words.

    ends_after_s: seconds between the last ending and the end of the search, in which Ray keeps the workers.
    """

    def __init__(self, source: Source, ends_after_s: float = 0.0) -> None:
        super().__init__()
        self._source: Source | None = source
        self._ends_after_s = ends_after_s
        self._over_since: float | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        assert self._source is not None
        config = self._source.suggest(trial_id)
        if config is not None or not self._source.over:
            self._over_since = None
            return config
        now = time.monotonic()
        self._over_since = self._over_since or now
        return Searcher.FINISHED if now - self._over_since >= self._ends_after_s else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        assert self._source is not None
        self._source.lost(trial_id, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the truth, and a resume reads it."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search resumes from its ledger, not from Ray's snapshot")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}  # Ray pickles its tuner; the trial manager holds open files
