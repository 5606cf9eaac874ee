"""If the end cannot be written, what ended the search is still told, and first."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.programs.toy import Toy
from tuner.config import demo_path, load_experiment
from tuner.contract import Card, InputError, Reason, Verdict, load_program
from tuner.driver.disk_guard import DiskGuard
from tuner.driver.ending import Ending
from tuner.driver.session import _second_to_an_error
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.storage import Mirror
from tuner.signals import StopSignals

HALT = Verdict(Reason.DATA, "all labels are masked", "look at data.format")


@pytest.fixture
def ending(tmp_path: Path) -> Ending:
    """The end of a search with one usable trial, whose settings can no longer be read: best/ cannot be made."""
    folder, record = RunFolder(tmp_path / "run"), SearchRecord()
    folder.path.mkdir()
    disk = DiskGuard(folder.path, 0, say=lambda text: None, note=lambda text: None, stopping=lambda: False)
    ledger = Ledger(folder.ledger, [record.apply], full=disk.full)
    experiment = load_experiment(demo_path())
    made = Ending(experiment, folder, record, ledger, Mirror(folder.path), disk, StopSignals(), None)
    ledger.append(Kind.SEARCH, details={"name": "run", "num_trials": 2})
    ledger.append(Kind.STARTED, trial="a", number=0, attempt=1, params={})
    ledger.append(
        Kind.EVALUATION, trial="a", number=0, attempt=1, step=5, metrics={"eval_loss": 1.0}, best={"eval_loss": 1.0}
    )
    reason = Reason.BUDGET
    ledger.append(Kind.ENDED, trial="a", number=0, attempt=1, status=str(reason.status), reason=str(reason))
    folder.resolved.write_text("{", encoding="utf-8")
    return made


def test_what_halted_the_search_is_told_first(ending: Ending) -> None:
    outcome = ending.write(HALT)
    first, *rest = outcome.trouble.splitlines()
    assert first == HALT.message and rest[0] == f"  try: {HALT.remedy}"
    assert "the end could not be written" in rest[1] and "resolved.json" in rest[1]
    assert "search --resume run" in rest[2] and outcome.exit_code == 1


def test_a_lost_cluster_is_told_first(ending: Ending) -> None:
    trouble = ending.write(None, None, "Ray is gone").trouble
    assert trouble.startswith("Ray is gone\nthe end could not be written")


def test_a_failure_stays_for_who_raised_it(ending: Ending) -> None:
    assert ending.write(None, InputError("the space draws nothing")).trouble.startswith("the space draws nothing\n")


def test_an_interruption_keeps_its_code_and_its_line(ending: Ending) -> None:
    ending._signals.first = signal.SIGTERM
    outcome = ending.write()
    assert outcome.exit_code == 128 + signal.SIGTERM and "search --resume run" in outcome.trouble


def test_alone_it_is_an_error_of_its_own(ending: Ending) -> None:
    with pytest.raises(InputError, match=r"resolved\.json"):
        ending.write()


def test_what_closes_raises_only_where_nothing_else_did() -> None:
    def close() -> None:
        raise InputError("the store is gone")

    on_exit = _second_to_an_error(close)
    on_exit(ValueError, ValueError("first"), None)
    with pytest.raises(InputError, match="the store is gone"):
        on_exit(None, None, None)


class Speechless(Toy):
    """Raises when it is asked for its part of the model card."""

    @classmethod
    def card(cls, settings: Any, setup: Mapping[str, Any]) -> Card:
        raise KeyError("base")


def test_a_program_that_cannot_describe_its_adapter_loses_only_the_description(ending: Ending) -> None:
    folder, ledger = ending._folder, ending._ledger
    adapter = folder.trial(1) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "weights").write_text("1")
    better, about = {"eval_loss": 0.5}, {"trial": "b", "number": 1, "attempt": 1}
    ledger.append(Kind.STARTED, **about, params={})
    ledger.append(
        Kind.EVALUATION, **about, step=5, metrics=better, best=better, details={"adapter": "adapters/0001/adapter"}
    )
    ledger.append(Kind.ENDED, **about, status="completed", reason="budget")
    folder.resolved.write_text("{}", encoding="utf-8")
    settings = load_program(f"{__name__}:Speechless").Settings()
    ending._experiment = replace(ending._experiment, program=f"{__name__}:Speechless", settings=settings)
    assert ending.write().trouble == ""
    assert (folder.best / "weights").read_text() == "1"
    assert "An adapter, the best of 2 trials." in (folder.best / "README.md").read_text()
    assert "the program's part of the model card is missing: KeyError: 'base'" in folder.record().notes


def test_another_threads_end_has_the_signals_code_though_python_has_not_heard_it(ending: Ending) -> None:
    ending._folder.resolved.write_text("{}", encoding="utf-8")
    assert ending._signals.first is None
    child = os.fork()
    if not child:
        ending.write_alone(signal.SIGTERM)  # ends the process
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
