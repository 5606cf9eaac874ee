"""A cluster of three nodes with authentication on: searches submitted, followed, read back, and a node lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import psutil
import pytest
import yaml

from tests.integration.conftest import S3_ENVIRONMENT, SPACE, TOY, s3_server, s3_uri
from tuner.results.adapters import checked_manifest
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.slow  # a cluster of several nodes for minutes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "start_cluster.sh"


@dataclass(frozen=True)
class Nodes:
    """A running cluster. address: of its dashboard. private: a folder that only node 1 sees. bucket: the folder of a
    bucket that all nodes reach, at `port`. laptop: an environment with the cluster's token. own: that of the cluster's
    nodes."""

    address: str
    private: Path
    bucket: Path
    port: int
    laptop: dict[str, str]
    own: dict[str, str]

    def tuner(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tuner", *arguments],
            env=self.laptop | environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", *arguments],
            env=self.laptop, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def asked(self, command: str, name: str, *arguments: str) -> str:
        """What a command answers that has the cluster do something."""
        done = self.tuner(command, name, *arguments, "--address", self.address)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, submission_id: str) -> str:
        """The log of a job, as the dashboard shows it."""
        token = Path(self.laptop["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        asked = urllib.request.Request(
            f"{self.address}/api/jobs/{submission_id}/logs", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return str(json.load(answer)["logs"])

    def kill(self, number: int) -> None:
        subprocess.run([SCRIPT, "kill", str(number)], env=self.own, check=True, timeout=60)

    def status(self, name: str) -> dict[str, Any]:
        done = self.tuner("status", name, "--address", self.address, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes of one CPU; node 1 has working copies on a disk of its own, node 2 claims to have a GPU of a type."""
    folder = tempfile.mkdtemp(prefix="tc", dir="/tmp")  # short: Ray keeps its sockets there
    shutil.rmtree(folder)
    root = tmp_path_factory.mktemp("s3")
    private = tmp_path_factory.mktemp("private") / "tuner-storage"
    own = {
        **os.environ, **S3_ENVIRONMENT, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "TUNER_CLUSTER_DIR": folder,
        "NODE_RESOURCES_2": '{"accelerator_type:H100": 1}', "TMPDIR": str(private.parent),
        **({"NODE_PRIVATE_1": str(private)} if os.geteuid() == 0 else {}),
    }  # fmt: skip
    with s3_server(root) as port:
        try:
            subprocess.run([SCRIPT, "3"], env=own, check=True, stdout=subprocess.DEVNULL, timeout=240)
            lines = Path(folder, "env").read_text().split()
            told = dict(word.split("=", 1) for word in lines if "=" in word)
            laptop = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": told["RAY_AUTH_TOKEN_PATH"]}
            yield Nodes(told["RAY_API_SERVER_ADDRESS"], private, root / "bucket", port, laptop, own)
        finally:
            subprocess.run([SCRIPT, "stop"], env=own, check=False, timeout=60)


COMPLAINTS = re.compile("Traceback|Exception ignored|was destroyed|never awaited|Unclosed")
"""What Python and asyncio print where a process is interrupted and does not clean up."""


def write(folder: Path, num_trials: int, pace: float) -> str:
    """Writes a search file into a folder, and gives its path; every trial runs its ten evaluations."""
    file = folder / "search.yaml"
    search = {"num_trials": num_trials, "space": SPACE}
    settings = {"train": {"pace": pace}, "search": search, "scheduler": "none", "run": {"program": TOY}}
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def running_on(nodes: Nodes, number: int, ledger: Path) -> list[int]:
    """Numbers of the running trials that have been evaluated, and whose process belongs to node `number`."""
    session = int(Path(nodes.own["TUNER_CLUSTER_DIR"], f"node-{number}.pid").read_text())
    record = SearchRecord.fold(read_ledger(ledger))
    return [
        trial.number
        for trial in record.trials.values()
        if trial.is_running
        and trial.points
        and psutil.pid_exists(trial.setup["pid"])
        and os.getsid(trial.setup["pid"]) == session
    ]


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("environment", "address", "told"),
    [
        ({"RAY_AUTH_TOKEN": "x" * 32}, None, "does not accept the token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, None, "asks for a token, and there is none here"),
        ({}, "http://127.0.0.1:9", "no Ray job server answers at http://127.0.0.1:9"),
        ({}, "head:8265", "'head:8265' is no address of a Ray dashboard"),
    ],
)
def test_what_cannot_be_submitted_is_said_and_nothing_is_there(
    nodes: Nodes, tmp_path: Path, environment: dict[str, str], address: str | None, told: str
) -> None:
    done = nodes.tuner(
        "submit", write(tmp_path, 1, 0), "--name", "refused", "--storage-path", str(tmp_path / "runs"),
        "--address", address or nodes.address, **environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert "refused" not in nodes.tuner("status", "refused", "--address", nodes.address).stderr.partition("expected")[2]


def test_ctrl_c_detaches_and_a_search_is_not_submitted_twice(nodes: Nodes, tmp_path: Path) -> None:
    arguments = ("submit", write(tmp_path, 3, 0.5), "--name", "left", "--storage-path", str(tmp_path))
    following = nodes.start(*arguments, "--address", nodes.address)
    wait_for("the search did not get going", lambda: (tmp_path / "left" / "trials.jsonl").exists())
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=30)
    assert following.returncode == 0, errors
    assert f"python -m tuner status left --follow --address {nodes.address}" in errors
    assert f"python -m tuner stop left --address {nodes.address}" in errors
    assert not COMPLAINTS.search(errors), errors

    again = nodes.tuner(*arguments, "--address", nodes.address)
    assert again.returncode == 2 and "is running there already, as the job left" in again.stderr
    wait_for("the search did not end", lambda: bool(nodes.status("left").get("finished")))
    assert nodes.status("left")["counts"]["status"] == {"completed": 3}

    wrong = nodes.tuner(*arguments, "--address", nodes.address)
    assert wrong.returncode == 2 and "was submitted there before, as the job left" in wrong.stderr
    assert "sending" not in wrong.stderr, "it is refused before anything is sent"
    assert nodes.status("left")["counts"]["status"] == {"completed": 3}, "and hides nothing"


def test_a_job_that_was_refused_does_not_hide_the_search_before_it(nodes: Nodes, tmp_path: Path) -> None:
    """The second job of "kept" fails on the cluster, and a search that has that job's id as its name is another one."""
    arguments = ("submit", write(tmp_path, 2, 0), "--storage-path", str(tmp_path), "--address", nodes.address)
    assert nodes.tuner(*arguments, "--name", "kept").returncode == 0
    (tmp_path / "kept").rename(tmp_path / "away")
    gone = nodes.tuner("submit", "--resume", "kept", "--num-trials", "3", "--address", nodes.address)
    assert gone.returncode == 2 and "there is no run 'kept'" in gone.stderr
    assert nodes.status("kept")["counts"]["status"] == {"completed": 2}
    assert nodes.tuner(*arguments, "--name", "kept.2").returncode == 0
    assert nodes.status("kept.2")["name"] == "kept.2" and nodes.status("kept")["name"] == "kept"


def test_the_dashboards_of_a_search_on_a_cluster_are_served_here(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    order = ("submit", write(tmp_path, 2, 0), "--name", "shown", "--storage-path", str(tmp_path / "runs"))
    assert nodes.tuner(*order, "--address", nodes.address).returncode == 0
    served = nodes.start("dashboard", "shown", "--address", nodes.address, "--json")
    try:
        assert served.stdout
        urls = json.loads(served.stdout.readline() or served.communicate(timeout=60)[1])
        with urllib.request.urlopen(urljoin(urls["optuna"], "/api/studies"), timeout=60) as answer:
            assert [study["study_name"] for study in json.load(answer)["study_summaries"]] == ["shown"]
        served.send_signal(signal.SIGINT)
        _, errors = served.communicate(timeout=60)
        assert served.returncode == 0 and not COMPLAINTS.search(errors), errors
    finally:
        served.kill()


def test_a_search_has_a_life_after_it_was_left(nodes: Nodes, tmp_path: Path) -> None:
    """Submitted, left, followed from another shell, one trial stopped, one added, its winner fetched, resumed with more
    trials; all through the dashboard's address and the token."""
    there, at = tmp_path / "there", ("--address", nodes.address)
    order = ("submit", write(tmp_path, 4, 2.0), "--name", "life", "--storage-path", str(there), *at)
    assert nodes.tuner(*order, "--detach").returncode == 0
    wait_for("no trial was measured", lambda: bool(nodes.status("life").get("best") or running_now(nodes, "life")))

    watching = nodes.start("status", "life", "--follow", *at)
    following = nodes.start("submit", "--attach", "life", *at)
    lines = iter(following.stderr or ())
    assert any("trial 0" in line for line in lines), "it tells what came before, too"
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=60)
    assert following.returncode == 0 and "detached: life goes on" in errors and not COMPLAINTS.search(errors), errors

    assert "is paused" in nodes.asked("pause", "life")
    found = nodes.tuner("status", "life", *at, "--json")
    running = [row["number"] for row in json.loads(found.stdout)["leaderboard"] if row["status"] == "running"]
    assert running, found.stdout + found.stderr
    number = running[-1]
    assert f"trial {number} is stopped" in nodes.asked("stop", "life", str(number))
    refused = nodes.tuner("stop", "life", str(number), *at)
    assert refused.returncode == 2 and f"trial {number} has ended (stopped: user)" in refused.stderr
    assert "added: learning_rate=0.01" in nodes.asked("add", "life", "--set", "learning_rate=0.01")
    assert "is running there already" in nodes.tuner(*order).stderr
    early = nodes.tuner("export", "life", "--to", str(tmp_path / "early"), *at)
    assert early.returncode == 2 and "there is no best adapter" in early.stderr
    assert f"python -m tuner status life --address {nodes.address}" in early.stderr, "the command of this machine"
    assert not (tmp_path / "early").exists()
    assert "goes on" in nodes.asked("resume", "life")

    followed = nodes.tuner("status", "life", "--follow", *at)
    _, seen = watching.communicate(timeout=60)
    for code, told_at_last in ((followed.returncode, followed.stderr), (watching.returncode, seen)):
        assert code == 0 and f"export life --to DIR --address {nodes.address}" in told_at_last
        assert not COMPLAINTS.search(told_at_last), told_at_last
    told = nodes.status("life")
    assert told["counts"]["reason"] == {"budget": 4, "user": 1}
    log = nodes.log("life")
    assert '{"event"' not in log and log.count("trial 0 started") == 1, "the job's log is for people"
    assert "was submitted there before" in nodes.tuner(*order).stderr

    report = nodes.asked("report", "life", "--format", "md")
    assert "5 of 5 trials" in report and f"--address {nodes.address}" in report

    nodes.asked("export", "life", "--to", str(tmp_path / "here"))
    assert checked_manifest(tmp_path / "here")["trial"] == told["best"]["trial"]
    assert same_files(tmp_path / "here", there / "life" / "best")
    assert "is already there" in nodes.tuner("export", "life", "--to", str(tmp_path / "here"), *at).stderr

    nothing = nodes.tuner("submit", "--resume", "life", *at)
    assert nothing.returncode == 0 and "nothing is left to run in life: 5 trials ended" in nothing.stderr
    more = nodes.tuner("submit", "--resume", "life", "--num-trials", "7", *at)
    assert more.returncode == 0, more.stderr
    assert nodes.status("life")["counts"]["reason"] == {"budget": 6, "user": 1}
    over = nodes.tuner("stop", "life", *at)
    assert over.returncode == 2
    assert f"python -m tuner submit --resume life --address {nodes.address}" in over.stderr


def running_now(nodes: Nodes, name: str) -> list[int]:
    """Numbers of the trials that run, as `status` says."""
    return [row["number"] for row in nodes.status(name).get("leaderboard", []) if row["status"] == "running"]


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders have the same files."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a folder of a node's own takes root")


@needs_root
def test_storage_that_one_node_does_not_share(nodes: Nodes, tmp_path: Path) -> None:
    done = nodes.tuner(
        "submit", write(tmp_path, 2, 0), "--name", "alone", "--storage-path", str(nodes.private / "runs"),
        "--address", nodes.address,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "1 of 3 nodes cannot work:" in done.stderr and "is not seen there" in done.stderr
    assert not (nodes.private / "runs" / "alone").exists()


@pytest.mark.slow
@needs_root
def test_adapters_come_from_a_node_with_a_disk_of_its_own(nodes: Nodes, tmp_path: Path) -> None:
    """Runs in a bucket: rows reach every node, and whatever node trained the winner, it is in best/."""
    uri = s3_uri("runs", nodes.port)
    done = nodes.tuner(
        "submit", write(tmp_path, 6, 0.2), "--name", "far", "--storage-path", uri, "--address", nodes.address, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = nodes.bucket / "runs" / "far"
    assert (
        json.loads((there / "best" / "manifest.json").read_text())["trial"] == json.loads(done.stdout)["best"]["trial"]
    )
    assert {place.name for place in (there / "adapters").iterdir()} == {f"{n:04d}" for n in range(6)}
    here = {place.name for place in (nodes.private.glob("*/far/adapters/*/adapter"))}
    assert here, "the driver's node trained some"
    assert len(list(nodes.private.glob("*/far/adapters/*/adapter/adapter.json"))) < 6, (
        "and the others came by the bucket"
    )


def test_trials_ask_for_a_gpu_type(nodes: Nodes, tmp_path: Path) -> None:
    arguments = ("--storage-path", str(tmp_path), "--address", nodes.address, "--set", "resources.gpus_per_trial=0")
    file = write(tmp_path, 2, 0.2)
    refused = nodes.tuner("submit", file, "--name", "none", *arguments, "--set", "resources.accelerator_type=A100")
    assert refused.returncode == 2, refused.stderr
    assert "no node has or may get a A100" in refused.stderr and "one of: H100" in refused.stderr
    done = nodes.tuner("submit", file, "--name", "typed", *arguments, "--set", "resources.accelerator_type=H100")
    assert done.returncode == 0, done.stderr
    assert "2 trials on 1 worker" in done.stderr, "one node has the type, and it has one CPU"


@pytest.mark.slow
def test_the_doctor_looks_at_every_node(nodes: Nodes, tmp_path: Path) -> None:
    done = nodes.tuner("doctor", "--address", nodes.address, "--storage-path", str(nodes.private / "runs"), "--json")
    told = json.loads(done.stdout)
    assert "INFO" not in done.stderr, "Ray's client does not speak to people"
    places = {finding["where"] for finding in told["findings"]}
    assert len([place for place in places if place.startswith("node ")]) == 3
    levels = {(f["where"].partition(" ")[0], f["what"]): f["level"] for f in told["findings"] if f["level"] != "red"}
    assert levels["driver", "ray token"] == "green" and levels["node", "tuner"] == "green"
    red = [finding for finding in told["findings"] if finding["level"] == "red"]
    if os.geteuid() == 0:
        assert done.returncode == 1 and [finding["what"] for finding in red] == ["storage"], red
        assert "is not seen by the driver" in red[0]["text"]


def test_a_node_is_lost_and_all_trials_end(nodes: Nodes, tmp_path: Path) -> None:
    file = write(tmp_path, 8, 0.4)
    arguments = ("--name", "lost", "--storage-path", str(tmp_path / "runs"), "--address", nodes.address, "--json")
    following = nodes.start("submit", file, *arguments)
    ledger = tmp_path / "runs" / "lost" / "trials.jsonl"
    wait_for("no trial ran on node 2", lambda: bool(running_on(nodes, 2, ledger)))
    victim = running_on(nodes, 2, ledger)[0]
    nodes.kill(2)
    output, errors = following.communicate(timeout=180)
    assert following.returncode in (0, 3), errors
    told = nodes.status("lost")
    assert told["finished"] and not told["active"]
    assert sorted(row["number"] for row in told["leaderboard"]) == list(range(8))
    assert sum(told["counts"]["status"].values()) == 8 and "stopped" not in told["counts"]["status"]
    lost = next(row for row in told["leaderboard"] if row["number"] == victim)
    assert lost["reason"] in ("infrastructure", "budget")  # budget: another node took it over
    assert told["counts"]["status"]["completed"] >= 7
    assert json.loads(output)["best"]["trial"] == told["best"]["trial"]
    shown = nodes.tuner("show", "lost", str(told["best"]["trial"]), "--address", nodes.address)
    assert "the winner" in shown.stdout
