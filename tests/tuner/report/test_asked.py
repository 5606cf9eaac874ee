"""Requests to a running search, as people see them."""

from __future__ import annotations

from pathlib import Path

from tests.tuner.report import searches
from tuner.contract import Reason, Verdict
from tuner.report.lines import plain
from tuner.report.live import frame
from tuner.report.machine import status_json
from tuner.report.plain import PlainView
from tuner.report.summary import Place, summary
from tuner.results.ledger import Kind
from tuner.results.records import SearchRecord


def asked() -> searches.Tape:
    """A running search to which somebody adds a trial, and which is then paused, resumed and stopped."""
    tape = searches.running()
    number = 1 + max(event.number or 0 for event in tape.events)
    own = searches.params(1e-3, 64, "2r", 8)
    tape.say(Kind.ADDED, params={"lora_r": 64}, details={"name": "a1", "by": "user"})
    tape.say(Kind.PAUSED, details={"why": "by you"})
    tape.say(Kind.RESUMED)
    details = {"by": "user", "addition": "a1"}
    tape.say(Kind.STARTED, number=number, attempt=1, params=own, details=details)
    tape.attempts[number] = 1
    tape.evaluate(number, 11, 5.1)
    tape.say(Kind.STOPPED, details={"by": "user"})
    record = SearchRecord.fold(tape.events)
    for one in [n for n, trial in record.trials.items() if trial.is_running]:
        tape.end(one, Verdict(Reason.USER))
    tape.say(Kind.FINISHED, details={"outcome": "stopped"})
    return tape


def folded(kind: Kind) -> SearchRecord:
    """The record of the search after its first event of this kind."""
    events = asked().events
    last = next(i for i, event in enumerate(events) if event.event is kind)
    return SearchRecord.fold(events[: last + 1])


def test_an_addition_waits_on_top_of_what_was_planned() -> None:
    before, after = SearchRecord.fold(searches.running().events), folded(Kind.ADDED)
    assert after.num_trials == before.num_trials + 1
    assert [a.params for a in after.additions.values()] == [{"lora_r": 64}]
    ended = SearchRecord.fold(asked().events)
    assert not ended.additions and ended.num_trials == before.num_trials + 1


def test_a_pause_is_in_view_until_it_ends() -> None:
    text = plain(frame(folded(Kind.PAUSED), 100, 30, elapsed=60))
    assert "paused by you" in text and "left" not in text
    assert status_json(folded(Kind.PAUSED), Path("x"))["paused"] == "by you"
    assert "paused" not in plain(frame(folded(Kind.RESUMED), 100, 30, elapsed=60))
    assert "stopping" in plain(frame(folded(Kind.STOPPED), 100, 30, elapsed=60))


def test_plain_lines_say_each() -> None:
    view = PlainView()
    said = "\n".join(line for event in asked().events for line in view.lines(event))
    for words in (
        "added: lora_r 64",
        "paused by you: trials wait at their next evaluation",
        "goes on",
        "started (added): ",
        "stopping: what runs is stopped, what it has found is kept",
        "stopped: user",
    ):
        assert words in said


def test_a_stopped_search_says_what_is_left_and_who_added_what() -> None:
    record = SearchRecord.fold(asked().events)
    text = plain(summary(record, Place("first"), 120))
    assert "stopped: user (added)" in text
    assert "stopped: user\n" in plain(summary(record, Place("first"), 100)), "narrower, without who added it"
    assert "python -m tuner search --resume first" in text
