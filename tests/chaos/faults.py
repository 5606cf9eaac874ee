"""The faults that the suite causes, by name, and the table of how often each was survived.

A test names the fault that it causes with the fixture `fault`; the fault counts if the test passes. `make chaos` sets
TUNER_CHAOS: then the run fails if a fault of this list was not survived once, also where its test was skipped or
renamed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

Count = Callable[..., None]

WHOLE = "TUNER_CHAOS"

FAULTS: dict[str, tuple[str, ...]] = {
    "killed": (
        "kill -9 of the driver at a random moment",
        "kill -9 of the driver in the middle of a line",
        "kill -9 of the driver while a real trial trains",
        "kill -9 of the driver while trials are parked",
        "kill -9 of every process of a search at once",
        "kill -9 of the Ray that a search runs on",
        "kill -9 of a trial's actor",
        "kill -9 of a trial's actor, among 1,000 trials",
        "kill -9 of an engine",
        "kill -9 of the raylet of a second node",
    ),
    "signalled": (
        "a signal at a stage of a search",
        "a terminal that closes",
        "SIGINT",
        "SIGINT, twice",
        "SIGTERM",
        "SIGTERM, twice",
        "a signal at a moment of the start",
    ),
    "starved": (
        "a Ray that does not start",
        "a disk of 3 MB, full at the start",
        "a disk of 3 MB, full in the middle of a write",
        "a disk of 3 MB, full under a running search",
        "a disk of 3 MB, full at the end of a search",
        "a disk that fails under a running search",
        "a disk that fails at the start of a search",
        "a run folder that is moved under its search",
        "a run folder that is removed under its search",
        "a driver that can open no more files",
        "out of memory",
        "out of memory, in a real trial",
        "out of memory, in packed trials",
    ),
    "damaged": (
        "a state file cut off or with a bit flipped",
        "a trial's state cut off or with a bit flipped",
        "state files damaged between a kill and a resume",
        "an adapter damaged between two sessions",
        "a base that changed between a kill and a resume",
        "a base whose checkpoint lacks a weight",
    ),
    "answered wrongly": (
        "a loss that is NaN",
        "a loss that is infinite",
        "a loss that is minus infinite",
        "a loss that is None",
        "a loss that is a text",
        "a loss of 10 MB",
        "a report without its keys",
        "a report of 10 MB",
        "a report that cannot be pickled",
        "a report that is a text",
        "no report at all",
    ),
    "misbehaved": (
        "a program that raises in set-up",
        "a program that raises",
        "a program that calls sys.exit",
        "a program that forks a child that stays",
        "a program that cannot be pickled",
        "a segmentation fault",
        "three errors in a row with one cause",
        "a trial that sleeps for ever",
        "a packed trial that sleeps for ever",
        "sys.exit in a thread of a program",
        "a KeyboardInterrupt in a worker",
        "the host's memory, used up in a program",
        "a GPU's memory, used up where no program answers for it",
        "out of memory, with what would fit",
        "a Fault for what is no failure",
        "a full disk that a program meets",
        "an import that fails in a program",
        "an exception that cannot be put into words",
        "a trial that is slow and says so, let alone",
    ),
    "not heard": (
        "a reader of the output that goes away",
        "a reader of the output that does not read",
        "a full disk behind the output",
        "a closed standard stream",
        "a terminal that is closed",
        "a terminal that is stopped",
        "a listener that raises",
        "a row of the dashboard that cannot be made",
        "a tracking server that never answers",
    ),
    "without a home": (
        "no home folder",
        "a home folder that cannot be written",
        "a user without a name",
        "a temporary folder that is not there",
        "warnings as errors",
        "an interpreter without assertions",
        "an output that takes ASCII alone",
    ),
    "lied to": (
        "a clock set back by a day",
        "a clock set forward by a month",
        "two drivers on one run",
        "bytes of a search file, fuzzed",
        "bytes of a space, fuzzed",
        "a callable of the standard library named by a file, fuzzed",
        "a space function that fails in a running search",
        "rows of data, fuzzed",
        "a ledger, fuzzed",
        "JSON of a run folder, fuzzed",
        "a hostile run folder",
        "an odd entry where requests are put",
        "a study that others write while its search runs",
        "a secret where it can be put",
    ),
    "cut off from others": (
        "a proxy that is closed, before the hub",
        "a proxy that is silent, before the hub",
        "a hub cache of another user, that cannot be written",
        "a part of a base in the hub's cache",
        "a proxy that is closed, before a cluster",
        "a proxy that is silent, before a cluster",
        "a cluster that asks for a token, and none here",
        "the address of a cluster that has ended",
    ),
}
KNOWN = frozenset(name for names in FAULTS.values() for name in names)

_PROPERTY = "fault"
_MET: Counter[str] = Counter()


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Count:
    """Counts a fault that the test causes, by its name, if the test passes."""

    def count(name: str, times: int = 1) -> None:
        assert name in KNOWN, f"{name!r} is not in the list of faults"
        request.node.user_properties.append((_PROPERTY, [name, times]))  # they come with the report of a worker process

    return count


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for kind, value in report.user_properties:
            if kind == _PROPERTY:
                name, times = value  # type: ignore[misc]
                _MET[name] += times


def missing() -> list[str]:
    """The faults that this run should have survived and did not."""
    return sorted(KNOWN - {name for name, times in _MET.items() if times}) if os.environ.get(WHOLE) else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = hasattr(session.config, "workerinput")  # the process that gathers the reports counts
    if not worker and missing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _MET and not missing():
        return
    terminalreporter.section("faults survived, with every invariant held")
    width = max(map(len, KNOWN))
    for group, names in FAULTS.items():
        rows = [(name, _MET[name]) for name in names if _MET[name] or name in missing()]
        if rows:
            terminalreporter.write_line(group)
        for name, times in rows:
            terminalreporter.write_line(f"  {name:<{width}}  {times or 'none':>6}")
    terminalreporter.write_line(f"  {'in all':<{width}}  {sum(_MET.values()):>6,}")
