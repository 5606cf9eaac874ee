"""The folder of a Ray that is started here: its owner, its lifetime, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tuner.contract import InputError
from tuner.ray_cluster import home
from tuner.ray_cluster.home import Home, sweep

ROOT = Path(__file__).resolve().parents[3]
DRIVER = """
import subprocess, sys, time
from types import SimpleNamespace
from tuner.ray_cluster.home import Home
made = Home()
services = SimpleNamespace(ConsolePopen=subprocess.Popen)
with made.starting(services):  # a process that has a child in a process group of its own, as Ray's workers are
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600'], process_group=0).pid, flush=True)"
    code += "; time.sleep(600)"
    parent = services.ConsolePopen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
print(made.path, parent.pid, parent.stdout.readline().strip(), made._reaper.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which homes are made; its path is short."""
    made = Path(os.path.realpath("/tmp")) / f"h{os.getpid()}"
    made.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(made))
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)


def left(place: Path) -> list[str]:
    return sorted(file.name for file in place.iterdir())


def test_it_is_its_users_alone_and_goes(place: Path) -> None:
    made = Home()
    assert made.path.parent == place and stat.S_IMODE(made.path.stat().st_mode) == 0o700
    made.ray.mkdir()
    made.ray.chmod(0o777)  # as Ray has it
    made.clear()
    made.clear()
    assert left(place) == []


def test_what_a_driver_told_with_its_last_breath_is_heard() -> None:
    """It is dead before the reaper reads, and so is the leader of the session; its child is not."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    child = psutil.Process(int(leader.communicate()[0]))
    told = subprocess.run(
        [sys.executable, "-I", home.reaper.__file__, "/nonexistent/home", "1"],
        input=f"{leader.pid}\n", text=True, timeout=30, check=True,
    )  # fmt: skip
    assert told.returncode == 0
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("to_group", [False, True])
def test_nothing_outlives_a_driver_that_is_killed(place: Path, to_group: bool) -> None:
    """Neither processes nor the folder, though nobody could say goodbye; a signal to all of them first does nothing."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert driver.stdout is not None
    path, *pids = driver.stdout.readline().split()
    family = [psutil.Process(int(pid)) for pid in pids]
    if to_group:
        family[-1].send_signal(signal.SIGTERM)
        os.killpg(driver.pid, signal.SIGKILL)
    else:
        driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive and not Path(path).exists()
    driver.stdout.close()


def test_what_a_machine_that_went_down_left_is_swept_away(place: Path) -> None:
    alive = Home()
    dead = place / "tuner-ray-deadbeef"
    (dead / "t").mkdir(parents=True)
    (dead / "lock").touch()
    foreign = place / "tuner-ray-foreign"  # without a lock: not ours
    foreign.mkdir()
    making = place / ".tuner-ray-making"
    making.mkdir()
    linked = place / "tuner-ray-linked"
    linked.symlink_to(foreign)
    try:
        sweep(place)
        assert left(place) == sorted([alive.path.name, foreign.name, making.name, linked.name])
        old = time.time() - home.MAKING_S - 1
        os.utime(making, (old, old))
        sweep(place)
        assert making.name not in left(place)
    finally:
        alive.clear()


def test_a_path_that_is_too_long_for_sockets_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = home.LONGEST_SOCKET - home._BELOW - len("/tuner-ray-12345678")
    fits = place / ("x" * (longest - len(str(place)) - 1))
    monkeypatch.setenv("RAY_TMPDIR", str(fits))
    made = Home()
    made.clear()
    monkeypatch.setenv("RAY_TMPDIR", f"{fits}y")
    with pytest.raises(InputError, match=f"{longest + 1} bytes are too long a path") as found:
        Home()
    assert "RAY_TMPDIR" in found.value.remedy
    assert left(Path(f"{fits}y")) == []


def test_a_folder_that_cannot_be_written_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(place / "file" / "below"))
    with pytest.raises(InputError, match="cannot be made"):
        Home()


def test_where_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert home.parent() == Path("/tmp")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert home.parent() == Path("/tmp")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert home.parent() == tmp_path
    monkeypatch.setenv("RAY_TMPDIR", "/fast")
    assert home.parent() == Path("/fast")


def test_rays_processes_are_told_their_temporary_folder(place: Path) -> None:
    made, services = Home(), SimpleNamespace(ConsolePopen=subprocess.Popen)
    try:
        with made.starting(services):
            code = "import os, tempfile; print(tempfile.gettempdir(), os.getsid(0) == os.getpid())"
            child = services.ConsolePopen(  # type: ignore[call-overload]
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
            )
        assert child.communicate()[0].split() == [str(made.temporary), "True"]
        assert services.ConsolePopen is subprocess.Popen
    finally:
        made.clear()
