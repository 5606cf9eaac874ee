"""A running search as people watch it: the Ray dashboard in a browser, its jobs, tasks and logs, Prometheus, and the
dashboards that tuner serves. One search is paused with all its trials running, so that all of them show the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import SPACE, TOY
from tests.programs.answering import free_port
from tests.programs.browser import browser, needs_browser, until
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord
from tuner.results.requests import ask

pytestmark = pytest.mark.slow  # what Ray and a browser show comes in its own time

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = shutil.which("prometheus")
PACKAGE = ROOT / "tuner" / "watch"


@dataclass(frozen=True)
class Watched:
    folder: RunFolder
    url: str
    token: str

    @property
    def record(self) -> SearchRecord:
        return self.folder.record()

    def get(self, path: str) -> Any:
        """The dashboard's answer to `path`, asked with the token."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read().decode()
        return json.loads(text) if text[:1] in "[{" else text


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A paused search of three trials, each at its second report or a later one, and each with a row in the
    dashboard."""
    storage = tmp_path_factory.mktemp("runs")
    file = storage / "search.yaml"
    search = {"num_trials": 3, "space": SPACE}
    run = {"program": TOY, "name": "first", "storage_path": str(storage)}
    train = {"max_steps": 100, "pace": 1.0}
    written = {"train": train, "search": search, "scheduler": "none", "resources": {"cpus_per_trial": 0.5}, "run": run}
    file.write_text(yaml.safe_dump(written))
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "search", str(file), "--max-concurrent-trials", "3"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = RunFolder(storage / "first")
    try:
        under_way = 0
        while under_way < 3:  # three seconds of steps: a row appears after two
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.3)
            trials = folder.record().trials.values() if folder.ledger.exists() else ()
            under_way = sum(len(trial.points) >= 3 for trial in trials)
        ask(folder, "pause", {})
        until(lambda: folder.record().paused)
        token = (Path.home() / ".ray" / "auth_token").read_text().strip()
        url, _, page = folder.record().dashboard.partition("/#")
        assert page.startswith("/jobs/")
        yield Watched(folder, url, token)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def rows(watched: Watched) -> dict[int, dict[str, Any]]:
    """The tasks that are rows, by the trial's number."""
    answer = watched.get("/api/v0/tasks?detail=1&limit=10000")["data"]["result"]["result"]
    of_trials = [task for task in answer if task["func_or_class_name"].endswith("trial")]
    return {int(re.match(r"first · trial (\d+) lr=", task["name"])[1]): task for task in of_trials}  # type: ignore[index]


def test_the_job_says_which_search_it_is(watched: Watched) -> None:
    job = next(job for job in watched.get("/api/jobs/") if job["type"] == "DRIVER")
    assert job["metadata"]["job_name"] == "first"  # the Jobs page's column Name
    assert job["metadata"]["folder"] == str(watched.folder.path)


def test_a_trials_reports_are_in_the_log_of_its_row(watched: Watched) -> None:
    def last() -> str:
        """The last report in the record. After a pause only the step that was running may still add one."""
        point = watched.record.trials[0].points[-1]
        return f"step {point.step:>3}/100 · {point.value:.4g}"

    row = until(lambda: (found := rows(watched).get(0, {})).get("state") == "RUNNING" and found)

    def log() -> str:
        try:
            return str(watched.get(f"/api/v0/logs/file?task_id={row['task_id']}&suffix=err&lines=100&format=text"))
        except urllib.error.HTTPError:  # Ray's agent has not found the file yet
            return ""

    said = until(lambda: last() in (text := log()) and text)
    assert f"log    {watched.folder.log(0)}" in said
    steps = [int(step) for step in re.findall(r"step +(\d+)/100", said)]
    assert len(steps) >= 3 and steps == sorted(steps)


@needs_browser
def test_the_page_that_tuner_opens_lists_every_running_trial(watched: Watched, tmp_path: Path) -> None:
    """Signed in by `tuner dashboard`: a browser that was never here is not asked for the token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "first", "--json", "--storage-path",
         str(watched.folder.path.parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["ray"]
        with browser(tmp_path / "profile") as page:
            page.open(address)
            until(lambda: "Task Table" in page.text())
            assert page.driver.current_url == watched.record.dashboard
            page.click("Task Table")
            until(lambda: "Function or class name" in page.text())
            page.fill("Name", "first · trial")
            found = until(
                lambda: len(f := set(map(int, re.findall(r"first · trial (\d+) lr=", page.text())))) == 3 and f
            )
            assert found == {trial.number for trial in watched.record.running}
            assert not page.complaints()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.mark.skipif(not PROMETHEUS, reason="no prometheus on this machine")
def test_prometheus_reads_the_gauges_with_the_shipped_configuration(watched: Watched, tmp_path: Path) -> None:
    written = yaml.safe_load((PACKAGE / "prometheus.yml").read_text())
    discovery = written["scrape_configs"][0]["http_sd_configs"][0]
    discovery["url"] = discovery["url"].replace("http://127.0.0.1:8265", watched.url)
    discovery["authorization"]["credentials_file"] = str(Path.home() / ".ray" / "auth_token")
    discovery["refresh_interval"] = written["global"]["scrape_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(written))
    assert PROMETHEUS
    port = free_port()
    process = subprocess.Popen(
        [
            PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def query(expression: str) -> list[dict[str, Any]]:
        place = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(place, timeout=5) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    def losses() -> dict[int, float]:
        return {int(found["metric"]["trial"]): float(found["value"][1]) for found in query("ray_tuner_eval_loss")}

    def shown() -> bool:
        """Whether every trial's gauge shows the last loss in the record. It is some seconds late: until then it shows
        an earlier loss of the trial, and never another."""
        found, trials = losses(), watched.record.trials
        for number, loss in found.items():
            assert loss in [pytest.approx(point.value) for point in trials[number].points]
        return found == pytest.approx({number: trial.value for number, trial in trials.items()})

    try:
        until(shown)
        counts = {found["metric"]["status"]: float(found["value"][1]) for found in query("ray_tuner_trials")}
        assert counts["running"] == 3 and sum(counts.values()) == 3
        for found in query('{__name__=~"ray_tuner_.*"}'):
            told = json.dumps(found["metric"])
            assert watched.token not in told and str(watched.folder.path) not in told
        dashboard = json.loads((PACKAGE / "grafana.json").read_text())
        targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
        assert len(targets) >= 6
        for expression in targets:
            asked = expression.replace("$search", "first").replace("$objective", "eval_loss")
            if "memory" not in asked and "maximize" not in asked:  # no accelerator, no memory; and a loss falls
                until(lambda asked=asked: query(asked))  # type: ignore[misc]
    finally:
        process.terminate()
        process.wait(20)


def test_tuner_serves_the_study_and_the_curves_on_the_loopback(watched: Watched) -> None:
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    place = ["--storage-path", str(watched.folder.path.parent)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "first", "--json", *place],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        assert answer["ray"].startswith("http://127.0.0.1:")
        assert all(url.startswith("http://127.0.0.1:") for url in answer.values() if "://" in str(url))
        origin = answer["optuna"].removesuffix("/dashboard")
        with urllib.request.urlopen(f"{origin}/api/studies", timeout=20) as studies:
            study = json.load(studies)["study_summaries"][0]
        assert study["study_name"] == "first"
        journal = watched.folder.study.read_bytes()
        wish = urllib.request.Request(f"{origin}/api/studies/{study['study_id']}", method="DELETE")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(wish, timeout=20)
        assert watched.folder.study.read_bytes() == journal, "nobody but the driver writes the study"
        with urllib.request.urlopen(f"{answer['tensorboard']}/data/runs", timeout=20) as runs:
            assert {"trial-0000-recipe", "trial-0001", "trial-0002"} <= set(json.load(runs))
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors
