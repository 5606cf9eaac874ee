"""Sixty deliveries of signals: four signals to the driver, its process group and every process of the search, once and
twice, at every stage. The search ends within `WITHIN_S` with its exit code, and its last words say how to go on.

`TUNER_CHAOS=whole` makes all deliveries and prints the table; else there is one for each stage.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.chaos import driving, invariants
from tests.chaos.driving import Driver, Shared
from tests.chaos.faults import WHOLE, Count
from tests.integration.conftest import SPACE, TOY
from tests.programs.patient import SIGN, STAYS
from tuner.driver.ending import NOTHING_KEPT
from tuner.results.ledger import Kind, read_ledger

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 10.0
PROGRAM = "tests.programs.patient:Patient"
INT, TERM, HUP, QUIT = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT

IMPORTS = """
import importlib.abc, pathlib, sys, time
class Slow(importlib.abc.MetaPathFinder):  # the command's own imports take a while
    def find_spec(self, name, path, target=None):
        if name == "tuner.driver.session":
            pathlib.Path({sign!r}).touch()
            time.sleep(30)
sys.meta_path.insert(0, Slow())
"""
END = """
import pathlib, time
import tuner.driver.ending as ending
write_best = ending.write_best
def slow(*arguments, **more):  # a disk that is slow, or hangs
    pathlib.Path({sign!r}).touch()
    time.sleep({seconds})
    return write_best(*arguments, **more)
ending.write_best = slow
"""


@dataclass(frozen=True)
class Stage:
    """A stage of a search, and how a driver is brought there. kept: whether trials have begun by then. there: whether
    the driver is at this stage. ends: whether the search completes in spite of a signal."""

    name: str
    kept: bool
    there: Callable[[Driver, Path], bool]
    packed: bool = False
    code: str = ""
    command: str = "search"
    trials: int = 3
    ends: bool = False


def signed(driver: Driver, sign: Path) -> bool:
    return sign.exists()


def evaluated(driver: Driver, sign: Path) -> bool:
    return driving.counting(Kind.EVALUATION, 3)(driver.events)


def starting(driver: Driver, sign: Path) -> bool:
    return any("raylet" in invariants.name_of(p) for p in driver.look_around())


def waiting(driver: Driver, sign: Path) -> bool:
    """Whether Ray has started and the driver waits for the rows."""
    return sign.exists() and driving.counting(Kind.SEARCH, 1)(driver.events)


def stopped(driver: Driver, sign: Path) -> bool:
    """Suspends Ray's own processes once a trial is evaluated, so that they do not answer."""
    if not evaluated(driver, sign):
        return False
    still = [p for p in driver.look_around() if invariants.name_of(p).split(" ")[0] in ("gcs_server", "raylet")]
    for process in still:
        process.suspend()
    time.sleep(1)
    return len(still) == 2


STAGES = {
    stage.name: stage
    for stage in (
        Stage("imports", False, signed, code=IMPORTS),
        Stage("Ray's start", False, starting),
        Stage("preparation", False, waiting),
        Stage("engines", False, signed, packed=True),
        Stage("packed steps", True, evaluated, packed=True),
        Stage("solo steps", True, evaluated),
        Stage("long step", True, signed),
        Stage("Ray stands still", True, stopped),
        Stage("slow end", True, signed, code=END.replace("{seconds}", "1.5"), trials=1, ends=True),
        Stage("hung end", True, signed, code=END.replace("{seconds}", "3600"), trials=1),
        Stage("train", True, evaluated, command="train"),
    )
}


@dataclass(frozen=True)
class Delivery:
    stage: str
    number: signal.Signals
    to: str
    times: int

    def __str__(self) -> str:
        return f"{self.stage}, {self.number.name} to {self.to}{', twice' if self.times == 2 else ''}"


ANY = [(TERM, "group", 1), (INT, "process", 2), (HUP, "group", 1), (QUIT, "process", 1), (TERM, "all", 1),
       (INT, "group", 2)]  # fmt: skip
SOME = [(TERM, "group", 1), (INT, "group", 2), (HUP, "all", 1), (QUIT, "process", 1)]
STILL = [(TERM, "process", 1), (INT, "process", 2), (TERM, "group", 2), (HUP, "group", 1)]
DELIVERIES = [
    Delivery(stage, *how)
    for stage, hows in {
        "imports": ANY, "Ray's start": ANY, "preparation": ANY, "engines": ANY, "packed steps": ANY, "solo steps": ANY,
        "long step": SOME, "Ray stands still": STILL, "slow end": SOME[:3], "hung end": SOME[:3], "train": SOME,
        "submit": ANY,
    }.items()
    for how in hows
]  # fmt: skip
assert len(DELIVERIES) == 60
MADE = [d for d in DELIVERIES if os.environ.get(WHOLE) or (d.number is TERM and d.to == "group" and d.times == 1)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with driving.shared_ray() as ray:
        yield ray


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """The lines of the table, which is printed at the end of the module."""
    lines: list[str] = []
    yield lines
    rows = [f"{'stage':<17}{'signal':<9}{'to':<9}{'times':<7}{'code':<6}{'seconds':<9}resumes", *lines]
    sys.__stderr__.write("\n" + "\n".join(rows) + "\n")


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary folder for one search, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def written(stage: Stage, folder: Path) -> Path:
    """Writes its search file, and gives the path."""
    values = {
        "train": {"pace": 0.3},
        "search": {"num_trials": stage.trials, "space": SPACE},
        "run": {"program": PROGRAM, "name": "run", "trackers": []},
        "scheduler": {"kind": "none"},
        "resources": {"trials_per_gpu": 2} if stage.packed else {},
    }
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def begin(stage: Stage, folder: Path, home: Path, sign: Path) -> Driver:
    """Starts a driver in a process group of its own, as a shell does."""
    file = written(stage, folder)
    code = f"{stage.code.replace('{sign!r}', repr(str(sign)))}\nimport sys\nfrom tuner.__main__ import main\nmain()"
    stays = {STAYS: stage.name, SIGN: str(sign), "RAY_TMPDIR": str(home), "TMPDIR": str(home)}
    inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_MODE", "RAY_ADDRESS")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, stage.command, str(file), "--storage-path", str(folder)],
        env={**inherited, "PYTHONPATH": str(ROOT), **stays}, cwd=ROOT, process_group=0,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Driver(process, folder / "run")


def deliver(delivery: Delivery, driver: Driver) -> None:
    pid = driver.process.pid
    for time_ in range(delivery.times):
        if time_:
            time.sleep(0.3)
        with suppress(ProcessLookupError):
            if delivery.to == "group":
                os.killpg(pid, delivery.number)
            else:
                os.kill(pid, delivery.number)
        if delivery.to == "all":  # a batch system that knows every process of a job
            for process in driver.family:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(delivery.number)


@pytest.mark.parametrize("delivery", [d for d in MADE if d.stage != "submit"], ids=str)
def test_a_signal(
    delivery: Delivery, request: pytest.FixtureRequest, tmp_path: Path, home: Path, table: list[str], fault: Count
) -> None:
    stage, sign = STAGES[delivery.stage], tmp_path / "sign"
    driver = begin(stage, tmp_path, home, sign)
    deadline = time.monotonic() + 240
    while not stage.there(driver, sign):
        assert driver.process.poll() is None, driver.process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "the search did not get going"
        time.sleep(0.05)
    driver.look_around()
    before = driver.events
    began = time.monotonic()
    deliver(delivery, driver)
    _, errors = driver.process.communicate(timeout=60)
    took = time.monotonic() - began

    resumes = ended(stage, driver, errors)
    code = driver.process.returncode
    table.append(
        f"{stage.name:<17}{delivery.number.name:<9}{delivery.to:<9}{delivery.times:<7}{code:<6}{took:<9.1f}{resumes}"
    )
    assert code == (0 if stage.ends else 128 + delivery.number), errors
    assert "Traceback" not in errors and "fault of the tuner" not in errors, errors
    assert took < WITHIN_S, f"{took:.1f} s"
    _, alive = psutil.wait_procs(driver.family, timeout=10)
    assert not alive, [p.cmdline() for p in alive]
    assert not list(home.iterdir()), "nothing is left in the temporary folder"
    if stage.kept:
        invariants.check_kept(before, driver.events)
        record = invariants.check_ledger(driver.folder)
        assert not record.running
        assert record.outcome == ("done" if stage.ends else "interrupted") or stage.name == "hung end"
        assert not [trial for trial in record.ended if str(trial.status) == "failed"]
    if stage.kept and (delivery.times == 1 and delivery.to == "group"):
        goes_on(stage, tmp_path, request.getfixturevalue("shared"))
    fault("a signal at a stage of a search")


@dataclass(frozen=True)
class Head:
    """A cluster to submit to: the address of its dashboard, and an environment with its token."""

    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="tc", dir="/tmp")  # short: Ray keeps its sockets there
    shutil.rmtree(folder)
    script = ROOT / "scripts" / "start_cluster.sh"
    own = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "TUNER_CLUSTER_DIR": folder}
    try:
        subprocess.run([script, "1"], env=own, check=True, stdout=subprocess.DEVNULL, timeout=240)
        told = dict(word.split("=", 1) for word in Path(folder, "env").read_text().split() if "=" in word)
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
        own = {**inherited, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": told["RAY_AUTH_TOKEN_PATH"]}
        yield Head(told["RAY_API_SERVER_ADDRESS"], own)
    finally:
        subprocess.run([script, "stop"], env=own | {"TUNER_CLUSTER_DIR": folder}, check=False, timeout=60)


@pytest.mark.parametrize("delivery", [d for d in MADE if d.stage == "submit"], ids=str)
def test_a_signal_while_a_submitted_search_is_followed(
    delivery: Delivery, head: Head, tmp_path: Path, home: Path, table: list[str], fault: Count
) -> None:
    """The search goes on, and its end is what it would have been. Ctrl-C is how a person leaves: exit code 0."""
    name = f"s{DELIVERIES.index(delivery)}"
    file = tmp_path / "search.yaml"
    settings = {"train": {"pace": 0.3}, "search": {"num_trials": 1, "space": SPACE}, "run": {"program": TOY}}
    file.write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "submit", str(file), "--name", name, "--storage-path", str(tmp_path),
         "--address", head.address, "--plain"],
        env={**head.environment, "TMPDIR": str(home)}, cwd=ROOT, process_group=0,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    driver = Driver(process, tmp_path / name)
    driver.wait(driving.counting(Kind.STARTED, 1))
    began = time.monotonic()
    deliver(delivery, driver)
    _, errors = process.communicate(timeout=60)
    took = time.monotonic() - began
    code = process.returncode
    line = f"{'submit':<17}{delivery.number.name:<9}{delivery.to:<9}{delivery.times:<7}{code:<6}{took:<9.1f}goes on"
    table.append(line)
    assert code == (0 if delivery.number is INT else 128 + delivery.number), errors
    assert f"detached: {name} goes on" in errors and "Traceback" not in errors, errors
    assert took < WITHIN_S and not list(home.iterdir())
    deadline = time.monotonic() + 120
    while not driving.counting(Kind.FINISHED, 1)(driver.events):
        assert time.monotonic() < deadline, "the search did not end"
        time.sleep(0.2)
    invariants.check(driver.folder, num_trials=1, status=False)
    fault("a signal at a stage of a search")


def test_a_terminal_that_closes(tmp_path: Path, home: Path, shared: Shared, fault: Count) -> None:
    """The kernel sends SIGHUP to the process group in front, and every write to the terminal fails from then on."""
    stage = STAGES["solo steps"]
    file, ledger = written(stage, tmp_path), tmp_path / "run" / "trials.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(home), "TERM": "xterm"}
    environment.pop("RAY_AUTH_MODE", None)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        command = [sys.executable, "-m", "tuner", "search", str(file), "--storage-path", str(tmp_path)]
        os.execve(sys.executable, command, environment)
    closes = threading.Event()
    reader = threading.Thread(target=drain, args=(terminal, closes), daemon=True)
    reader.start()
    deadline = time.monotonic() + 240
    while not (ledger.exists() and driving.counting(Kind.EVALUATION, 3)(list(read_ledger(ledger)))):
        assert time.monotonic() < deadline, "the search did not get going"
        time.sleep(0.1)
    family = psutil.Process(pid).children(recursive=True)
    closes.set()
    reader.join()
    began = time.monotonic()
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + HUP
    assert time.monotonic() - began < WITHIN_S
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    record = invariants.check_ledger(tmp_path / "run")
    assert record.outcome == "interrupted" and not record.running
    goes_on(stage, tmp_path, shared)
    fault("a terminal that closes")


def test_nohup_is_meant(tmp_path: Path, home: Path, fault: Count) -> None:
    """SIGHUP was ignored when it started: the search goes on to its end."""
    stage = STAGES["solo steps"]
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        driver = begin(stage, tmp_path, home, tmp_path / "sign")
    finally:
        signal.signal(HUP, before)
    driver.wait(driving.counting(Kind.EVALUATION, 3))
    os.killpg(driver.process.pid, HUP)
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check(driver.folder, num_trials=stage.trials, exit_code=code, family=driver.family, status=False)
    fault("a terminal that closes")


def drain(terminal: int, closes: threading.Event) -> None:
    """Reads what is shown on a terminal, until it is closed."""
    while not closes.is_set():
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                os.read(terminal, 65536)
            except OSError:
                return


def ended(stage: Stage, driver: Driver, errors: str) -> str:
    """Checks what the driver's last words say about going on; gives it for the table."""
    if stage.ends:
        assert (driver.folder / "best" / "manifest.json").exists(), errors
        return "done"
    if stage.kept:
        assert "search --resume run" in errors, errors
        return "--resume run"
    assert NOTHING_KEPT in errors or "the same command begins again" in errors, errors
    assert not driver.folder.exists(), "a search without a trial is none"
    return "the same command"


def goes_on(stage: Stage, folder: Path, shared: Shared) -> None:
    """Checks that a resume ends every trial with every invariant held."""
    if stage.ends:
        return
    driver = driving.resume(folder, on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    num_trials = 1 if stage.command == "train" else stage.trials
    invariants.check(driver.folder, num_trials=num_trials, exit_code=code, family=driver.family, status=False)
