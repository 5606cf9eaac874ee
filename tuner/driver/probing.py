"""A probe: the first trials of a search, a few steps of each, on the workers that the search would have.

It is a real search in a folder that is removed, through the same driver, Ray and workers, so that it meets what the
search will meet: imports, the load of the base, trials beside each other, evaluations. Each worker has a second trial,
which shows what a trial takes to begin once a worker is warm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tuner.config import Experiment, SearchBudget
from tuner.contract import InputError, Reason, Verdict
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.rates import Rates, rates_of
from tuner.results.records import SearchRecord
from tuner.scheduling.algorithms import CONTINUE, Algorithm, Candidate, Decision, stop
from tuner.scheduling.peers import Peers
from tuner.signals import StopRequested

STEPS = 20
"""Optimizer steps of each of its trials."""
AT = (0.25, 0.5, 1.0)
"""The shares of these steps at which a trial is evaluated. Two stretches of different lengths tell what a step takes
and what an evaluation does; the first one has the first calls of everything."""
EVERY_S = 0.1
"""Seconds between two looks at whether the probe is over."""
BY = "probe"
"""Who stopped the search, as its ledger has it."""


def places(steps: int | None) -> tuple[float, ...]:
    """The shares of a trial of so many steps at which it is evaluated; None: of a trial of unknown length."""
    probed = min(1.0, STEPS / steps) if steps else 0.02
    return (*(share * probed for share in AT), *((1.0,) if probed < 1 else ()))


class Probed(Algorithm):
    """Ends every trial at the last place that is probed."""

    def decide(self, trial: Candidate, peers: Peers) -> Decision:
        if len(trial.curve) < len(AT) and not trial.finished:
            return CONTINUE
        return stop(Verdict(Reason.USER, "probed"))

    def compare(self, trial: Candidate, peers: Peers) -> Decision:
        return CONTINUE


class Probing:
    """Ends the search after so many trials; the driver's loop calls `turn` every `EVERY_S` seconds."""

    def __init__(self, record: SearchRecord, ledger: Ledger, trials: int) -> None:
        self._record, self._ledger, self._trials = record, ledger, trials

    def turn(self) -> None:
        """Ends the search if its trials have been probed."""
        if self._record.num_ended >= self._trials and not self._record.stopped:
            self._ledger.append(Kind.STOPPED, details={"by": BY})


def probe(experiment: Experiment, steps: int | None, listeners: tuple[Callable[[Event], None], ...] = ()) -> Rates:
    """Runs a probe of a search and returns what its trials took. steps: of a whole trial; None where that is not known.
    Raises InputError where a trial cannot run so far, StopRequested for a signal, and what `run_search` raises."""
    from tuner.driver.session import run_search

    storage = experiment.storage_path
    was_there = storage.exists()
    storage.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=storage) as place:
            run = experiment.run.model_copy(update={"name": "probe", "storage_path": place, "trackers": []})
            search = experiment.search.model_copy(update={"budget": SearchBudget()})
            outcome = run_search(replace(experiment, run=run, search=search), listeners, probe_at=places(steps))
    finally:
        if not was_there:
            with suppress(OSError):
                Path(storage).rmdir()
    if outcome.signal is not None:
        raise StopRequested(outcome.signal)
    found = rates_of(outcome.record, "a probe just now")
    if found is None:
        record = outcome.record
        failed = next((f"trial {t.number}: {t.ending}" for t in record.ended if t.reason is not Reason.USER), "")
        raise InputError(
            f"nothing could be measured: {record.halt_message or failed or 'no trial was evaluated three times'}",
            where="--probe",
            expected="trials that train",
            remedy=record.halt_remedy or "run the search without --probe to see the whole of it",
        )
    return found
