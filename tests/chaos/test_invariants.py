"""The checker notices each breach that it is there for, and what the documents say of the suite is true."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import invariants
from tests.chaos.faults import KNOWN
from tuner.results.ledger import Event, Kind

Events = list[Event]


def course() -> Events:
    """The events of three trials: one is lost once, one is parked and continued."""

    def of(kind: Kind, number: int, attempt: int = 1, **values: object) -> Event:
        return Event(kind, 1.0, trial=f"t{number}-{attempt}", number=number, attempt=attempt, **values)  # type: ignore[arg-type]

    return [
        Event(Kind.SEARCH, 0.0),
        of(Kind.STARTED, 0),
        of(Kind.SETUP, 0),
        of(Kind.EVALUATION, 0, step=3, metrics={"eval_loss": 2.0}),
        of(Kind.STARTED, 1),
        of(Kind.SETUP, 1),
        of(Kind.RETRY, 0, reason="infrastructure"),
        of(Kind.ENDED, 1, status="failed", reason="error"),
        of(Kind.STARTED, 0, 2),
        of(Kind.SETUP, 0, 2, details={"resumed_step": 3}),
        of(Kind.EVALUATION, 0, 2, step=6, metrics={"eval_loss": 1.0}),
        of(Kind.ENDED, 0, 2, status="completed", reason="budget"),
        of(Kind.STARTED, 2),
        of(Kind.EVALUATION, 2, step=3, metrics={"eval_loss": 2.5}, details={"parked": True}),
        of(Kind.PARKED, 2),
        of(Kind.STARTED, 2, 2),
        of(Kind.SETUP, 2, 2, details={"resumed_step": 3}),
        of(Kind.EVALUATION, 2, 2, step=6, metrics={"eval_loss": 2.0}),
        of(Kind.ENDED, 2, 2, status="completed", reason="budget"),
    ]


def written(folder: Path, events: Events) -> Path:
    lines = "".join(event.to_json() + "\n" for event in events)
    (folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_sound_ledger_passes(tmp_path: Path) -> None:
    record = invariants.check_ledger(written(tmp_path, course()))
    assert record.trials[0].curve == [2.0, 1.0] and record.trials[2].curve == [2.5, 2.0]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda events: [*events[:4], events[3], *events[4:]],  # an evaluation twice
        lambda events: [*events[:10], events[3], *events[10:]],  # one of an attempt that was replaced
        lambda events: [*events, events[11]],  # two endings
        lambda events: [e for e in events if e is not events[8]],  # an attempt that was never started
        lambda events: [*events[:1], *events[4:6], *events[1:4], *events[6:]],  # trial 1 before trial 0
        lambda events: [*events[:8], events[1], *events[8:]],  # an attempt started twice
        lambda events: [*events[:15], replace(events[13], step=4), *events[15:]],  # a report of a parked attempt
        lambda events: [*events[:16], events[14], *events[16:]],  # parked, and another attempt has begun
        lambda events: [*events[:13], replace(events[13], details={}), *events[14:]],  # parked without a word
    ],
)
def test_an_unsound_one_does_not(tmp_path: Path, tamper: Callable[[Events], Events]) -> None:
    with pytest.raises(AssertionError):
        invariants.check_ledger(written(tmp_path, tamper(course())))


def test_a_line_that_changed_is_seen() -> None:
    before = course()
    invariants.check_kept(before[:5], before)
    with pytest.raises(AssertionError):
        invariants.check_kept(before, before[1:])


def test_every_fault_is_written_down_with_a_test_that_is_there() -> None:
    text = (invariants.ROOT / "RELIABILITY.md").read_text()
    rows = text.partition("## What is brought about")[2].partition("\n## ")[0].splitlines()
    told = {name.strip() for row in rows if row.count("|") == 3 for name in row.split("|")[1].split(";")}
    assert told - {"fault", "---"} == set(KNOWN)
    place = ""
    for reference in re.findall(r"`((?:[a-z_]+/)+test_\w+\.py(?:::\w+)?|::\w+)`", text):
        place, _, name = (place + reference if reference.startswith("::") else reference).partition("::")
        assert f"def {name}" in (invariants.ROOT / "tests" / place).read_text(), reference
