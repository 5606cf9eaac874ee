"""The events of a submitted search, read and followed through a dashboard. Searches on a real cluster are in
tests/integration/test_submit.py."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.dashboard import Dashboard, serving
from tests.tuner.report import searches
from tuner.cluster import events as module
from tuner.cluster.events import event_of, follow, told
from tuner.cluster.jobs import Cluster
from tuner.contract import InputError
from tuner.results.ledger import Event, Kind

ROOT = Path(__file__).resolve().parents[3]
TAPE = searches.finished().events


@pytest.fixture
def dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    with serving(tmp_path) as served:
        yield served


class Follower(threading.Thread):
    """Follows the job in a thread of its own."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.cluster = Cluster(url)
        self.got: list[Event] = []
        self.refused: InputError | None = None
        self.start()

    def run(self) -> None:
        try:
            for event in follow(self.cluster, "first"):
                self.got.append(event)
        except InputError as refused:
            self.refused = refused

    def has(self, count: int) -> None:
        until = time.monotonic() + 20
        while len(self.got) < count:
            assert time.monotonic() < until and self.is_alive(), f"{len(self.got)} of {count} events"
            time.sleep(0.01)

    def ended(self) -> list[str]:
        self.join(20)
        assert not self.is_alive()
        return lines(self.got)


def lines(events: list[Event]) -> list[str]:
    """The events as they are written: a loss that is no number is unlike itself."""
    return [event.to_json() for event in events]


def test_what_is_no_event_is_passed_over() -> None:
    event = Event(Kind.NOTE, 1.0, details={"text": "a"})
    assert event_of(event.to_json()) == event
    for line in (
        "",
        "starting",
        '{"event":"note"',
        '{"event":"unheard of","time":1}',
        '{"other":1}',
        event.to_json()[:-4],
    ):
        assert event_of(line) is None, line


def test_events_come_as_they_are_written_and_the_last_ones_are_not_lost(dashboard: Dashboard) -> None:
    follower = Follower(dashboard.url)
    for count, event in enumerate(TAPE[:5], 1):
        dashboard.write([event])
        follower.has(count)
    assert "-1" not in dashboard.asked[-2:], "only the last lines are asked for"
    line = TAPE[5].to_json() + "\n"
    with dashboard.events.open("a") as file:
        file.write(line[:40])
        file.flush()
        time.sleep(0.2)
        assert len(follower.got) == 5, "half a line is no event"
        file.write(line[40:])
    follower.has(6)
    dashboard.write(TAPE[6:])
    dashboard.end()
    assert follower.ended() == lines(TAPE)


def test_more_lines_than_a_look_asks_for(dashboard: Dashboard) -> None:
    many = [Event(Kind.NOTE, float(number), details={"text": "a"}) for number in range(900)]
    dashboard.write(many[:1])
    follower = Follower(dashboard.url)
    follower.has(1)
    for end in (40, 400, 900):
        dashboard.write(many[len(follower.got) : end])
        follower.has(end)
    dashboard.end()
    assert follower.ended() == lines(many)


def test_a_broken_connection_is_made_again_and_nothing_is_told_twice(dashboard: Dashboard) -> None:
    dashboard.write(TAPE[:10])
    follower = Follower(dashboard.url)
    follower.has(10)
    dashboard.stop()
    dashboard.write(TAPE[10:15])
    time.sleep(0.3)
    assert follower.is_alive() and len(follower.got) == 10
    dashboard.start()
    follower.has(15)
    dashboard.write(TAPE[15:])
    dashboard.end()
    assert follower.ended() == lines(TAPE)


def test_a_token_that_is_refused_while_it_is_followed(dashboard: Dashboard) -> None:
    dashboard.write(TAPE[:10])
    follower = Follower(dashboard.url)
    follower.has(10)
    dashboard.refuses = 403
    follower.ended()
    assert follower.refused and "does not accept the token" in follower.refused.what and follower.refused.remedy


def test_a_head_that_is_started_anew_while_it_is_followed(dashboard: Dashboard) -> None:
    """It is gone for a while, and comes back without its jobs."""
    dashboard.write(TAPE[:10])
    follower = Follower(dashboard.url)
    follower.has(10)
    dashboard.stop()
    dashboard.job = None
    time.sleep(0.2)
    dashboard.start()
    follower.ended()
    assert follower.refused and "no longer knows the job first" in follower.refused.what
    assert "submit --resume" in follower.refused.remedy


def test_two_followers_see_the_same(dashboard: Dashboard) -> None:
    dashboard.write(TAPE[:10])
    one = Follower(dashboard.url)
    one.has(10)
    other = Follower(dashboard.url)
    other.has(10)
    dashboard.write(TAPE[10:])
    dashboard.end()
    assert one.ended() == other.ended() == lines(TAPE)


def test_a_job_that_has_not_begun_and_one_without_events(dashboard: Dashboard) -> None:
    assert dashboard.job
    cluster = Cluster(dashboard.url)
    assert told(cluster, cluster.job("first")) == [], "there is no file"
    dashboard.write(TAPE)
    dashboard.job |= {"status": "PENDING", "driver_node_id": None}
    assert told(cluster, cluster.job("first")) == [], "no node is known"
    dashboard.job |= {"driver_node_id": "a node that is gone"}
    assert told(cluster, cluster.job("first")) == []
    dashboard.refuses = 401
    with pytest.raises(InputError, match="the cluster asks for a token, and there is none here"):
        cluster.last_lines("node", "name")
    dashboard.refuses = 503
    with pytest.raises(InputError, match="503"):
        cluster.last_lines("node", "name")


def test_the_job_writes_beside_its_log_and_nowhere_else(tmp_path: Path) -> None:
    """A search that is refused says so in its log, and has a file without events."""
    log = tmp_path / "job-driver-first.2.log"
    words = [sys.executable, "-m", "tuner", "search", "--resume", "absent", "--events-beside-log"]
    with log.open("wb") as output:
        done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 2 and "there is no run 'absent'" in log.read_text()
    assert (tmp_path / "job-driver-first.2.events.jsonl").read_text() == ""
    elsewhere = subprocess.run(words, capture_output=True, cwd=ROOT, text=True, check=False)
    assert elsewhere.returncode == 2 and "is no log of a Ray job" in elsewhere.stderr
