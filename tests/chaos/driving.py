"""Starts a driver in a process of its own, waits for it, kills it, and resumes its search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.chaos.invariants import name_of
from tests.integration.conftest import SPACE, TOY
from tuner.ray_cluster.session import import_ray
from tuner.ray_cluster.token import guard_token
from tuner.results.ledger import Event, Kind, read_ledger

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Driver:
    """A running `tuner search`. raylet: of the cluster that it joined; None: it started its own. family: the processes
    of the search when they were last noted."""

    process: subprocess.Popen[str]
    folder: Path
    raylet: psutil.Process | None = None
    family: list[psutil.Process] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        """The events in the ledger by now."""
        ledger = self.folder / "trials.jsonl"
        return list(read_ledger(ledger)) if ledger.exists() else []

    def wait(self, enough: Callable[[list[Event]], bool], timeout: float = 240) -> list[Event]:
        """Waits until `enough` is true of the ledger's events, and gives them. timeout: seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            events = self.events
            if enough(events):
                return events
            if self.process.poll() is not None:
                _, errors = self.process.communicate()
                raise AssertionError(f"the driver ended with {self.process.returncode}: {errors[-3000:]}")
            time.sleep(0.05)
        raise AssertionError("the search did not get going")

    def look_around(self) -> list[psutil.Process]:
        """Notes the processes of the search in `family`: all that the driver started, and on a cluster that it joined
        the workers of trials. They may outlive the driver only until they notice its end."""
        with suppress(psutil.NoSuchProcess):
            self.family = psutil.Process(self.process.pid).children(recursive=True)
        if self.raylet is not None:
            self.family += [p for p in self.raylet.children(recursive=True) if "ray::Trial" in name_of(p)]
        return self.family

    def kill(self) -> list[psutil.Process]:
        """Kills the driver with SIGKILL, and waits until its workers are gone. Gives all processes of the search.

        Ray's two agents outlive their raylet by up to a minute, trying to report its death.
        """
        self.look_around()
        self.process.kill()
        self.process.communicate()
        psutil.wait_procs([p for p in self.family if "Agent" not in name_of(p)], timeout=30)
        return self.family

    def kill_all(self) -> list[psutil.Process]:
        """Kills all processes of the search at once with SIGKILL, as where the machine fails."""
        for process in [*self.look_around(), psutil.Process(self.process.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.communicate()
        psutil.wait_procs(self.family, timeout=30)
        return self.family

    def end(self, timeout: float = 300) -> tuple[int, str, str]:
        """Waits until the driver ends; gives exit code, standard output, standard error. timeout: seconds."""
        self.look_around()
        output, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, output, errors


def has_torch(process: psutil.Process) -> bool:
    """Whether a process has torch loaded, and so trains: Ray names a worker after the call that it is in."""
    try:
        return any("libtorch" in place.path for place in process.memory_maps())
    except psutil.Error:
        return False


@dataclass(frozen=True)
class Shared:
    """A Ray that drivers join instead of starting one each, which costs 6 s of CPU time."""

    cluster: Any

    @property
    def address(self) -> str:
        return self.cluster.address

    @property
    def raylet(self) -> psutil.Process:
        return raylet_of(self.cluster.head_node)


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


@contextmanager
def shared_ray(cpus: int = 2, token: bool = True) -> Iterator[Shared]:
    """A Ray without a dashboard for drivers to join, which ends the processes that a worker has left. token: whether it
    asks for one."""
    guard_token()
    mode = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_MODE"] = "token" if token else "disabled"
    import_ray(None)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    try:
        yield Shared(made)
    finally:
        made.shutdown()
        del os.environ["RAY_AUTH_MODE"]
        os.environ.update({"RAY_AUTH_MODE": mode} if mode else {})


def counting(kind: Kind, at_least: int) -> Callable[[list[Event]], bool]:
    return lambda events: sum(event.event is kind for event in events) >= at_least


def start(
    folder: Path, *arguments: str, name: str = "run", environment: Mapping[str, str] | None = None, code: str = "",
    on: Shared | None = None,
) -> Driver:  # fmt: skip
    """Starts `tuner search` with its run in `folder`. code: Python that runs in the driver before the command. on: a
    Ray to join; None: it starts its own."""
    command = (
        ["-m", "tuner"]
        if not code
        else ["-c", f"{code}\nimport sys\nfrom tuner.__main__ import main\nsys.exit(main())"]
    )
    joined = {"RAY_ADDRESS": on.address} if on else {}
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    process = subprocess.Popen(
        [sys.executable, *command, "search", *arguments, "--storage-path", str(folder)],
        env={**inherited, "PYTHONPATH": str(ROOT), **joined, **(environment or {})}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Driver(process, folder / name, on.raylet if on else None)


def toy(folder: Path, *arguments: str, train: Mapping[str, Any] | None = None, trials: int = 5, **more: Any) -> Driver:
    """Starts a search with the toy program, called "run". train: settings of the toy."""
    run = {"program": TOY, "name": "run", **more.pop("run", {})}
    values = {"train": dict(train or {}), "search": {"num_trials": trials, "space": SPACE}, "run": run}
    values["resources"] = more.pop("resources", {})
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    return start(folder, str(file), *arguments, **more)


def resume(folder: Path, *arguments: str, **more: Any) -> Driver:
    return start(folder, "--resume", "run", *arguments, **more)
