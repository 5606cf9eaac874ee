"""Requests to a running search, on real Ray: another thread makes them, as another process would."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_endings import assert_consistent, study_of
from tuner.contract import InputError, Reason, Status
from tuner.driver.session import Outcome, resume_search
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind
from tuner.results.requests import ask

Toy = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]


class Person:
    """Watches a search, and calls `act` in a thread of its own once `due` is true of the events so far."""

    def __init__(self, due: Callable[[list[Event]], bool], act: Callable[[Person], object]) -> None:
        self.events: list[Event] = []
        self.failure: BaseException | None = None
        self._due, self._act = due, act
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if not self._thread.ident and self._due(self.events):
            self._thread.start()

    def _run(self) -> None:
        try:
            self._act(self)
        except BaseException as error:
            self.failure = error

    def done(self) -> None:
        assert self._thread.ident, "there was nothing to act upon"
        self._thread.join(30)
        if self.failure is not None:
            raise self.failure

    def wait(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)
        return found

    def running(self) -> set[int]:
        started = {e.number for e in self.events if e.event is Kind.STARTED}
        return {n for n in started - {e.number for e in self.events if e.event is Kind.ENDED} if n is not None}


def evaluations(number: int) -> Callable[[list[Event]], bool]:
    return lambda events: sum(e.event is Kind.EVALUATION for e in events) >= number


def quick(folder: RunFolder, action: str, **values: Any) -> str:
    """Asks the driver; checks that it answers within two seconds, and gives the answer."""
    since = time.monotonic()
    message = ask(folder, action, values)
    assert time.monotonic() - since < 2.0
    return message


def test_a_trial_is_stopped_and_its_worker_goes_on(toy: Toy, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "toy")

    def act(person: Person) -> None:
        number = max(person.running())
        assert f"trial {number} is stopped" in quick(folder, "stop", trial=number)
        with pytest.raises(InputError, match=f"trial {number} has ended \\(stopped: user\\)"):
            ask(folder, "stop", {"trial": number})
        with pytest.raises(InputError, match="there is no trial 99"):
            ask(folder, "stop", {"trial": 99})
        with pytest.raises(InputError, match="no action 'dance'"):
            ask(folder, "dance", {})

    person = Person(evaluations(3), act)
    outcome = toy([person], search__num_trials=3, train__pace=0.2, scheduler__kind="none")
    person.done()
    assert outcome.exit_code == 0
    assert_consistent(outcome)
    stopped = [t for t in outcome.record.trials.values() if t.reason is Reason.USER]
    assert len(stopped) == 1 and stopped[0].status is Status.STOPPED
    assert len(outcome.record.trials) == 3
    assert all(t.reason is Reason.BUDGET for t in outcome.record.trials.values() if t is not stopped[0])
    after = [e for e in person.events if e.number == stopped[0].number]
    assert after[-1].event is Kind.ENDED, "a stopped trial is not heard of again"


def test_a_persons_own_trial_enters_the_search(toy: Toy, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "toy")

    def act(person: Person) -> None:
        with pytest.raises(InputError, match="has no parameter `lr`"):
            ask(folder, "add", {"params": {"lr": 0.01}})
        with pytest.raises(InputError, match="learning_rate: 7 is outside the space"):
            ask(folder, "add", {"params": {"learning_rate": 7}})
        with pytest.raises(InputError, match="nothing to add"):
            ask(folder, "add", {"params": {}})
        assert "added: learning_rate=0.01;" in quick(folder, "add", params={"train.learning_rate": 0.01})
        assert "added: learning_rate=1e-3;" in quick(folder, "add", params={}, like=0)

    person = Person(evaluations(2), act)
    outcome = toy([person], search__num_trials=2, train__pace=0.15)
    person.done()
    assert_consistent(outcome)
    assert outcome.record.num_trials == 4 and not outcome.record.additions
    added = [t for t in outcome.record.trials.values() if t.added_by == "user"]
    assert [t.params for t in added] == [{"learning_rate": 0.01}, {"learning_rate": 1e-3}]
    attributes = {t.number: t.user_attrs.get("suggested_by") for t in study_of(outcome).trials}
    assert attributes == {0: None, 1: None, 2: "user", 3: "user"}
    assert outcome.record.best and outcome.record.best.number == 2, "the person knew better"

    again = resume_search(tmp_path, "toy", num_trials=5)  # the study is built anew from the ledger
    assert {t.number: t.user_attrs.get("suggested_by") for t in study_of(again).trials} == {**attributes, 4: None}


def test_a_paused_search_waits_answers_and_goes_on(toy: Toy, tmp_path: Path) -> None:
    """Also with no trial left under way, where Ray's loop stands still and asks for the next one."""
    folder = RunFolder(tmp_path / "toy")
    seen: list[int] = []

    def act(person: Person) -> None:
        assert "running trials waiting from the next evaluation on" in quick(folder, "pause")
        time.sleep(0.8)  # a step takes 0.1 s: whoever was in one has reported
        seen.append(len(person.events))
        assert "paused already" in quick(folder, "pause")
        time.sleep(1)
        seen.append(len(person.events))
        kept, *others = sorted(person.running())
        for number in others:
            quick(folder, "stop", trial=number)
        quick(folder, "resume")
        person.wait(lambda: sum(e.number == kept and e.event is Kind.EVALUATION for e in person.events) >= 6)
        quick(folder, "pause")
        time.sleep(0.8)  # where the machine is busy, one may be at its last step
        for number in person.running():
            quick(folder, "stop", trial=number)
        time.sleep(1.5)
        assert not person.running(), "none starts in a pause"
        assert "added" in quick(folder, "add", params={"learning_rate": 0.5})
        assert "goes on" in quick(folder, "resume")

    person = Person(evaluations(4), act)
    outcome = toy([person], search__num_trials=5, train__pace=0.1, scheduler__kind="none")
    person.done()
    assert seen[0] == seen[1], "nothing was measured or started while it was paused"
    assert outcome.exit_code == 0
    assert_consistent(outcome)
    reasons = [t.reason for t in outcome.record.trials.values()]
    assert len(reasons) == 6 and 2 <= reasons.count(Reason.USER) <= 4
    assert reasons.count(Reason.BUDGET) + reasons.count(Reason.USER) == 6


def test_a_stopped_search_keeps_its_best(toy: Toy, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "toy")
    person = Person(evaluations(8), lambda _: quick(folder, "stop"))
    outcome = toy([person], search__num_trials=40, train__pace=0.1)
    person.done()
    assert outcome.exit_code == 0 and outcome.signal is None
    record = outcome.record
    assert record.outcome == "stopped" and len(record.trials) < 40
    assert_consistent(outcome)
    assert Reason.USER in {t.reason for t in record.trials.values()}
    assert not any(t.interrupted for t in record.trials.values())
    assert (outcome.path / "best" / "manifest.json").exists()
    with pytest.raises(InputError, match="no driver runs the search 'toy'; it is over"):
        ask(folder, "stop", {})


def test_a_search_that_is_stopped_in_its_first_seconds_keeps_its_recipe_for_a_resume(toy: Toy, tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path / "toy"), list[str]()
    person = Person(
        lambda events: any(e.event is Kind.STARTED for e in events),
        lambda _: said.append(quick(folder, "stop")),
    )
    outcome = toy([person], search__num_trials=2, train__pace=1.0)
    person.done()
    assert "the recipe has no value yet, and a resume runs it again" in said[0]
    assert outcome.record.outcome == "stopped" and outcome.record.recipe and outcome.record.recipe.interrupted

    again = resume_search(tmp_path, "toy")
    assert again.exit_code == 0 and again.record.recipe
    assert again.record.recipe.reason is Reason.BUDGET and again.record.outcome == "done"


def test_a_search_is_followed_by_two_other_terminals_and_left_by_one(toy: Toy, tmp_path: Path) -> None:
    """It waits until both have begun; the one that is left says how to come back, and prints no complaint."""
    folder, followers = RunFolder(tmp_path / "toy"), list[subprocess.Popen[str]]()

    def follow() -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "tuner", "status", "toy", "--follow", "--storage-path", str(tmp_path)]
        started = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        followers.append(started)
        assert started.stderr and "of 3 trials" in started.stderr.readline()
        return started

    def act(person: Person) -> None:
        quick(folder, "pause")
        left, _ = follow(), follow()
        left.send_signal(signal.SIGINT)
        _, said = left.communicate(timeout=60)
        assert left.returncode == 0
        assert said.splitlines()[-3:] == [
            "detached: toy goes on",
            f"watch     python -m tuner status toy --follow --storage-path {tmp_path}",
            f"end it    python -m tuner stop toy --storage-path {tmp_path}",
        ]
        quick(folder, "resume")

    person = Person(evaluations(2), act)
    outcome = toy([person], search__num_trials=3, train__pace=0.1)
    person.done()
    told, said = followers[1].communicate(timeout=60)
    assert followers[1].returncode == 0 and outcome.exit_code == 0
    assert "3 of 3 trials" in told.splitlines()[0] and "best" in told, "the end, as `status` shows it"
    assert "goes on" in said and "trial 0 completed" in said, "a line for what happened meanwhile"
