"""A driver that is killed, signalled, started twice, or told a wrong time: what it wrote stays, and a resume goes
on."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos import driving, invariants
from tests.chaos.driving import Shared
from tests.chaos.faults import Count
from tuner.contract import Reason
from tuner.results.ledger import Event, Kind, read_ledger
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.chaos
ONE = {"max_concurrent_trials": 1}


def course(record: SearchRecord) -> dict[int, object]:
    """By trial: parameters, ending and curve, which a resumed search must repeat exactly."""
    return {n: (t.params, t.reason, t.message, t.curve) for n, t in sorted(record.trials.items())}


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with driving.shared_ray() as ray:
        yield ray


@pytest.mark.timeout(900)
def test_twenty_kills_of_the_driver(shared: Shared, tmp_path: Path, fault: Count) -> None:
    """Every fifth driver has a Ray of its own, which dies with it; the others leave one behind that lives on."""
    train = {"pace": 0.05}
    (tmp_path / "undisturbed").mkdir()
    calm = driving.toy(tmp_path / "undisturbed", train=train, trials=24, resources=ONE, on=shared)
    code, _, errors = calm.end()
    assert code == 0, errors
    expected = invariants.check(calm.folder, num_trials=24, exit_code=code)

    draw = random.Random(7)
    (tmp_path / "killed").mkdir()
    driver = driving.toy(tmp_path / "killed", train=train, trials=24, resources=ONE)
    before: list[Event] = []
    started: list[psutil.Process] = []
    for kill in range(1, 21):
        some = len(before) + draw.randint(1, 7)
        driver.wait(lambda events, some=some: len(events) >= some)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.15))
        started += driver.kill()
        after = driver.events
        invariants.check_kept(before, after)
        invariants.check_ledger(driver.folder)
        before = after
        driver = driving.resume(tmp_path / "killed", on=shared if kill % 5 else None)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=24, exit_code=code, family=[*started, *driver.family])
    invariants.check_kept(before, driver.events)
    assert record.sessions > 10, "most kills met a search that had begun"
    assert record.best and expected.best and record.best.number == expected.best.number
    assert course(record) == course(expected)
    fault("kill -9 of the driver at a random moment", 20)


def flip(file: Path) -> None:
    """Flips a bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def tear(file: Path) -> None:
    """Cuts off the second half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_real_trial_goes_on_where_its_driver_was_killed(shared: Shared, tmp_path: Path, fault: Count) -> None:
    """First the driver dies alone, then all of the search at once, and its files are damaged before it is resumed."""
    arguments = (
        "--num-trials", "2", "--scheduler", "none", "--sampler", "random", "--max-concurrent-trials", "1",
        "--set", "train.max_steps=20", "--set", "data.max_validation_rows=32", "--set", "train.lora_dropout=0.1",
    )  # fmt: skip
    often = {"TUNER_STATE_EVERY_S": "0", "OMP_NUM_THREADS": "1"}
    calm = driving.start(tmp_path, *arguments, "--name", "calm", name="calm", environment=often, on=shared)
    code, _, errors = calm.end()
    assert code == 0, errors
    expected = invariants.check(calm.folder, num_trials=2, exit_code=code)

    driver = driving.start(tmp_path, *arguments, "--name", "run", environment=often)
    driver.wait(driving.counting(Kind.EVALUATION, 4))
    before = driver.events
    started = driver.kill()
    invariants.check_kept(before, driver.events)

    driver = driving.resume(tmp_path, environment=often)
    driver.wait(driving.counting(Kind.EVALUATION, 14))
    before = driver.events
    started += driver.kill_all()
    invariants.check_kept(before, driver.events)
    newest = max(driver.folder.glob("adapters/0001/**/state.safetensors"), key=lambda file: file.stat().st_mtime)
    rows = next(driver.folder.glob("data/*/train/*.arrow"))
    tokenizer = driver.folder / "data" / "companions" / "tokenizer.json"
    for file, damage in ((newest, flip), (rows, flip), (tokenizer, flip), (driver.folder / "study.journal", tear)):
        damage(file)

    driver = driving.resume(tmp_path, environment=often, on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=2, exit_code=code, family=[*started, *driver.family])
    notes = "\n".join(record.notes)
    assert f"{newest}" in notes and "older one" in notes, notes
    assert "the tokenized rows of an earlier session were damaged" in notes
    kept, of_calm = (Path(folder, "best", "tokenizer.json").read_bytes() for folder in (driver.folder, calm.folder))
    assert kept == of_calm
    resumed = [e.details["resumed_step"] for e in driver.events if e.event is Kind.SETUP and (e.attempt or 1) > 1]
    assert resumed and min(resumed) > 0, "it went on and did not begin anew"
    for number, trial in expected.trials.items():
        other = record.trials[number]
        assert [p.step for p in other.points] == [p.step for p in trial.points]
        assert other.curve == pytest.approx(trial.curve, abs=1e-5)
        assert other.points[-1].tokens == trial.points[-1].tokens
    fault("kill -9 of the driver while a real trial trains")
    fault("kill -9 of every process of a search at once")
    fault("state files damaged between a kill and a resume", 3)


@pytest.mark.parametrize(
    ("process", "pace", "told"),
    [
        ("gcs_server", 0.3, "Failed to connect to GCS"),  # Ray ends the driver, after a minute if not told otherwise
        ("raylet", 1.0, "Ray's own process on this machine (raylet) has died"),  # its workers train on for 14 s
    ],
)
def test_the_ray_that_it_runs_on(
    shared: Shared, tmp_path: Path, fault: Count, process: str, pace: float, told: str
) -> None:
    soon = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    driver = driving.toy(tmp_path, "--scheduler", "none", train={"pace": pace}, trials=3, environment=soon)
    before = driver.wait(driving.counting(Kind.EVALUATION, 2))
    (found,) = [other for other in driver.look_around() if other.name() == process]
    found.kill()
    started = driver.family
    _, errors = driver.process.communicate(timeout=180)
    assert driver.process.returncode == 1 and told in errors and "Traceback" not in errors, errors
    assert "--resume run" in errors or process == "gcs_server"
    invariants.check_kept(before, driver.events)
    invariants.check_ledger(driver.folder)
    before = driver.events
    driver = driving.resume(tmp_path, on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check(driver.folder, num_trials=3, exit_code=code, family=[*started, *driver.family])
    invariants.check_kept(before, driver.events)
    fault("kill -9 of the Ray that a search runs on")


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143), (signal.SIGTERM, 2, 143)],
)
def test_signals(shared: Shared, tmp_path: Path, fault: Count, number: signal.Signals, times: int, code: int) -> None:
    driver = driving.toy(tmp_path, train={"pace": 0.2}, trials=5)
    before = driver.wait(driving.counting(Kind.EVALUATION, 6))
    driver.look_around()
    began = time.monotonic()
    for _ in range(times):
        driver.process.send_signal(number)
        time.sleep(0.3)
    _, errors = driver.process.communicate(timeout=60)
    took = time.monotonic() - began
    assert driver.process.returncode == code, errors
    assert "--resume run" in errors and "Traceback" not in errors
    assert took < 30
    invariants.check_processes(driver.family)
    invariants.check_kept(before, driver.events)
    cut = invariants.check_ledger(driver.folder)
    assert cut.outcome == "interrupted" and any(t.interrupted for t in cut.trials.values())
    kept = driver.events

    driver = driving.resume(tmp_path, on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=5, exit_code=code, family=driver.family)
    invariants.check_kept(kept, driver.events)
    for trial in cut.trials.values():
        if trial.points:
            assert record.trials[trial.number].setup["resumed_step"] > 0 or trial.has_ended
    fault(f"{number.name}{', twice' if times == 2 else ''}")


def test_a_second_driver_is_turned_away(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, train={"pace": 0.2}, trials=4, on=shared)
    driver.wait(driving.counting(Kind.EVALUATION, 2))
    code, _, errors = driving.resume(tmp_path).end()
    assert code == 2 and "being written by another driver" in errors and "Traceback" not in errors
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check(driver.folder, num_trials=4, exit_code=code, family=driver.family)
    fault("two drivers on one run")


_CLOCK = """
import time, os
_true = time.time
def told():
    if not os.path.exists({sign!r}):
        return _true()
    open({heard!r}, "w").close()
    return _true() + {shift}
time.time = told
"""


@pytest.mark.parametrize(("shift", "name"), [(-86_400, "back by a day"), (30 * 86_400, "forward by a month")])
def test_a_clock_that_is_set(shared: Shared, tmp_path: Path, fault: Count, shift: int, name: str) -> None:
    sign, heard = tmp_path / "set", tmp_path / "heard"
    code = _CLOCK.format(sign=str(sign), heard=str(heard), shift=shift)
    driver = driving.toy(tmp_path, train={"pace": 0.2}, trials=6, code=code, run={"hang_timeout": 20}, on=shared)
    driver.wait(driving.counting(Kind.EVALUATION, 8))
    sign.touch()
    exit_code, _, errors = driver.end()
    assert exit_code == 0, errors
    record = invariants.check(driver.folder, num_trials=6, exit_code=exit_code, family=driver.family)
    times = [event.time for event in driver.events]
    assert heard.exists(), "somebody was told the wrong time"
    assert times == sorted(times) and times[-1] - times[0] < 600, "not the ledger"
    assert 0 <= record.wall_s < 600 and all(t.attempt == 1 for t in record.trials.values())
    fault(f"a clock set {name}")


def test_an_actor_killed_from_outside(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, "--scheduler", "none", train={"pace": 0.2}, trials=3, on=shared)

    def at_work(events: list[Event]) -> list[int]:
        running = [t for t in SearchRecord.fold(events).trials.values() if t.is_running and len(t.points) > 2]
        return [t.setup["pid"] for t in running if t.attempt == 1]

    for _ in range(2):
        (pid, *_) = at_work(driver.wait(lambda events: bool(at_work(events))))
        psutil.Process(pid).kill()
        driver.wait(lambda events, pid=pid: pid not in at_work(events))  # type: ignore[misc]
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=3, exit_code=code, family=driver.family)
    assert sum(t.losses.get("infrastructure", 0) for t in record.trials.values()) == 2
    assert {t.reason for t in record.ended} == {Reason.BUDGET}
    fault("kill -9 of a trial's actor", 2)


def test_a_resume_with_more_trials_after_a_kill(shared: Shared, tmp_path: Path, fault: Count) -> None:
    driver = driving.toy(tmp_path, train={"pace": 0.1}, trials=3)
    driver.wait(driving.counting(Kind.ENDED, 1))
    started = driver.kill()
    ledger = driver.folder / "trials.jsonl"
    with ledger.open("a") as file:
        file.write('{"event":"evaluation","time":17')  # the line that a driver was writing when it died
    ended = {n: t.trial for n, t in SearchRecord.fold(read_ledger(ledger)).trials.items() if t.has_ended}
    driver = driving.resume(tmp_path, "--num-trials", "6", on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=6, exit_code=code, family=[*started, *driver.family])
    assert {n: record.trials[n].trial for n in ended} == ended, "what had ended was not run again"
    assert any("was torn" in note for note in record.notes), "and it is said"
    fault("kill -9 of the driver in the middle of a line")
