"""Two searches of 16 trials on one cluster that outlives them, solo (submitted) and packed, as the Ray dashboard shows
them: every trial named, its ending told, and nothing red but what failed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import SPACE, TOY
from tests.programs import heads
from tests.programs.browser import CHROMEDRIVER, CHROMIUM, browser, needs_browser, until
from tuner.results.folder import RunFolder
from tuner.watch.boards import signed_in

pytestmark = pytest.mark.slow  # a cluster of its own, and a minute of trials

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs"
PACK = "tests.programs.pack:Pack"
UPDATE = bool(os.environ.get("TUNER_UPDATE_SCREENSHOT"))
TRIALS = 16
FAILS = 5
"""The trial of the packed search that raises."""


@dataclass(frozen=True)
class Watched:
    """A cluster after its two searches. tasks: of each search while it ran, by name, at each look."""

    url: str
    token: str
    solo: RunFolder
    packed: RunFolder
    middle: list[dict[str, Any]]
    message: list[str]
    """The messages of the submitted search's job."""
    jobs_page: str = ""
    """What the Jobs page said in the middle, in one line."""

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read().decode()
        return json.loads(text) if text[:1] in "[{" else text

    def listed(self, what: str) -> list[dict[str, Any]]:
        return list(self.get(f"/api/v0/{what}?detail=1&limit=10000")["data"]["result"]["result"])

    def jobs(self, name: str) -> list[dict[str, Any]]:
        return [job for job in self.get("/api/jobs/") if (job["metadata"] or {}).get("tuner_search") == name]

    def rows(self, name: str) -> dict[int, dict[str, Any]]:
        return rows_of(self.listed("tasks"), name)

    def log(self, row: dict[str, Any]) -> list[str]:
        text = self.get(f"/api/v0/logs/file?task_id={row['task_id']}&suffix=err&lines=1000&format=text")
        return [line for line in str(text).splitlines() if line.strip() and not line.startswith(":")]


def rows_of(tasks: list[dict[str, Any]], name: str) -> dict[int, dict[str, Any]]:
    """The tasks that are rows of a search, by the trial's number."""
    title = re.compile(rf"{name} · trial (\d+) batch=\d+ lr=\S+$")
    return {int(found[1]): task for task in tasks if (found := title.match(task["name"]))}


def write(folder: Path, name: str, program: str, **train: Any) -> Path:
    file = folder / f"{name}.yaml"
    space = {"parameters": {**SPACE["parameters"], "batch_size": {"type": "int", "low": 1, "high": 8}}}
    written = {
        "train": {"max_steps": 100, "pace": 0.5, **train},
        "search": {"num_trials": TRIALS, "space": space},
        "scheduler": "none",
        "resources": {"cpus_per_trial": 0.4},
        "run": {"program": program, "name": name, "storage_path": str(folder)},
    }
    file.write_text(yaml.safe_dump(written))
    return file


def jobs_page(watched: Watched, place: Path) -> str:
    """What the Jobs page says of the submitted search."""
    with signed_in(f"{watched.url}/#/jobs", watched.token) as address, browser(place / "profile") as page:
        page.open(address)
        until(lambda: "Submission ID" in page.text())
        page.fill("Submission ID", "first")
        until(lambda: "trials ended" in page.text() and "second" not in page.text())
        page.picture(PICTURES / "ray-jobs.png" if UPDATE else place / "jobs.png")
        return " ".join(page.text().split())


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    place = tmp_path_factory.mktemp("runs")
    token = place / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with heads.running(dashboard=True, **own) as head:
        environment = {**os.environ, **own, **head.environment, "PYTHONPATH": str(ROOT)}
        first, second = write(place, "first", TOY), write(place, "second", PACK, each={str(FAILS): "raise"})
        searches = [
            subprocess.Popen(
                [sys.executable, "-m", "tuner", *words, "--max-concurrent-trials", "2"],
                env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True,
            )
            for words in (
                ("submit", str(first), "--address", head.dashboard),
                ("search", str(second), "--address", head.address, "--trials-per-gpu", "2"),
            )
        ]  # fmt: skip
        folders = RunFolder(place / "first"), RunFolder(place / "second")
        found = Watched(head.dashboard, token.read_text(), *folders, [], [])
        try:
            while any(search.poll() is None for search in searches):
                time.sleep(1)
                ended = found.solo.record().num_ended if found.solo.ledger.exists() else 0
                if not found.middle and TRIALS / 4 <= ended < TRIALS:
                    found.middle.extend(found.listed("tasks"))
                    if CHROMIUM and CHROMEDRIVER:
                        found = replace(found, jobs_page=jobs_page(found, place))
                found.message.extend(str(job["message"]) for job in found.jobs("first"))
            for search in searches:
                _, errors = search.communicate()
                assert search.returncode in (0, 3), errors  # 3: trials have failed
            yield found
        finally:
            for search in searches:
                if search.poll() is None:
                    search.terminate()
                    search.communicate(timeout=60)


@pytest.mark.parametrize("name", ["first", "second"])
def test_every_trial_has_a_row_with_its_search_number_and_parameters(watched: Watched, name: str) -> None:
    rows = until(lambda: len(found := watched.rows(name)) == TRIALS and found)
    assert set(rows) == set(range(TRIALS))


def test_in_the_middle_the_rows_are_what_runs_and_nothing_is_red(watched: Watched) -> None:
    rows = rows_of(watched.middle, "first")
    states = [row["state"] for row in rows.values()]
    assert 1 <= sum(state != "FINISHED" for state in states) <= 3 and states.count("FINISHED") >= 2
    jobs = {row["job_id"] for row in rows.values()}
    assert len(jobs) == 1 and not [t["name"] for t in watched.middle if t["job_id"] in jobs and t["state"] == "FAILED"]


def test_the_jobs_message_says_how_far_the_submitted_search_is(watched: Watched) -> None:
    told = [message for message in watched.message if message.partition(" ")[0].isdigit()]
    ended = [int(message.partition(" ")[0]) for message in told]
    assert len(set(ended)) >= 3 and ended == sorted(ended) and ended[0] < TRIALS / 2
    assert any(re.fullmatch(r"\d+ of 16 trials ended, [12] running · best loss \S+ \(trial \d+\)", m) for m in told)


def test_only_what_failed_is_red(watched: Watched) -> None:
    """The engine's step that raises is one of both trials in its slots."""
    failed = {trial.number: trial for trial in watched.packed.record().trials.values() if trial.status == "failed"}
    assert FAILS in failed and len(failed) < TRIALS / 2 and not watched.solo.record().counts["status"].get("failed")
    until(lambda: all(row["state"] in ("FINISHED", "FAILED") for row in watched.rows("second").values()))
    red = {task["name"]: task["error_message"] for task in watched.listed("tasks") if task["state"] == "FAILED"}
    assert set(red) == {watched.rows("second")[number]["name"] for number in failed}
    for number, trial in failed.items():
        assert trial.message.partition("\n")[0] in red[watched.rows("second")[number]["name"]]


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_ending_is_the_last_task_and_the_last_line(watched: Watched, name: str) -> None:
    folder = watched.solo if name == "first" else watched.packed
    told = {task["name"]: task for task in watched.listed("tasks")}
    for number, row in watched.rows(name).items():
        trial = folder.record().trials[number]
        lines = watched.log(row)
        last = next(line for line in reversed(lines) if line.startswith((str(trial.status), "failed")))
        assert last.startswith(str(trial.status))
        if trial.status != "failed":  # Ray prints what a failed task raised
            assert lines[-1] == last
            steps = [int(step) for step in re.findall(r"step +(\d+)/100", "\n".join(lines))]
            assert steps == [point.step for point in trial.points]
        ending = f"{name} · trial {number} · {last}"
        assert ending in told
        assert told[ending]["creation_time_ms"] >= row["end_time_ms"]


def test_a_row_is_no_process_of_its_own(watched: Watched) -> None:
    """Two trials run at a time: their rows share processes, which a trial after another takes."""
    workers = {row["worker_id"] for row in watched.rows("first").values()}
    assert len(workers) <= TRIALS / 2


def test_no_actor_was_killed(watched: Watched) -> None:
    actors = [actor for actor in watched.listed("actors") if actor["class_name"] in ("EngineActor", "TrialActor")]
    assert actors
    killed = [a["repr_name"] for a in actors if "ray.kill" in json.dumps(a["death_cause"])]
    assert not killed
    assert all(actor["repr_name"] for actor in actors)


@needs_browser
def test_the_jobs_page_shows_the_message_while_the_search_runs(watched: Watched) -> None:
    assert re.search(r"first .* RUNNING \d+ of 16 trials ended, [12] running", watched.jobs_page), watched.jobs_page


@needs_browser
def test_a_browser_shows_all_of_it(watched: Watched, tmp_path: Path) -> None:
    row = watched.rows("first")[0]
    job = row["job_id"]
    with signed_in(f"{watched.url}/#/jobs/{job}", watched.token) as address, browser(tmp_path / "profile") as page:
        page.open(address)
        until(lambda: "Task Table" in page.text())
        page.click("Task Table")
        until(lambda: "Function or class name" in page.text())
        page.fill("Page Size", "0")
        page.fill("Name", "first · trial")
        until(lambda: len(set(re.findall(r"first · trial (\d+) batch=", page.text()))) == TRIALS)
        assert not re.search(r"second · trial", page.text())
        page.show("Task Table")
        page.picture(PICTURES / "ray-dashboard.png" if UPDATE else tmp_path / "tasks.png")
        page.open(f"{watched.url}/#/jobs/{job}/tasks/{row['task_id']}")
        until(lambda: "completed at step 100" in page.text())
        selected = page.driver.find_element("css selector", "[role=tab][aria-selected=true]").text
        assert selected.lower() == "stderr"
        page.show("Logs")
        page.picture(PICTURES / "ray-trial.png" if UPDATE else tmp_path / "trial.png")
        page.open(f"{watched.url}/#/actors")
        until(lambda: "EngineActor" in page.text())
        page.picture(PICTURES / "ray-actors.png" if UPDATE else tmp_path / "actors.png")
        assert not page.complaints()
