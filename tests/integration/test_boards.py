"""What `tuner dashboard` serves of a finished search: the real servers, asked over HTTP and shown in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.chaos.runs import finished_run
from tests.integration.test_watching import CHROMEDRIVER, CHROMIUM, FLAGS, ROOT, until
from tests.tuner.report import searches
from tests.tuner.watch.test_trackers import track
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord
from tuner.watch.trackers import load_tracker

pytestmark = pytest.mark.slow  # what a browser shows comes in its own time

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no chromium and chromedriver on this machine"
)


@dataclass(frozen=True)
class Served:
    folder: RunFolder
    record: SearchRecord
    tensorboard: str

    def ask(self, url: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        wish = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(wish, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A finished search of eight trials, with every common ending, whose dashboards are served."""
    folder = RunFolder(finished_run(tmp_path_factory.mktemp("runs")))
    events = searches.finished().events
    record, notes = track({"tensorboard": partial(load_tracker("tensorboard"), "first", folder.path)}, events)
    assert notes == []
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "first", "--json", "--storage-path", str(folder.path.parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Served(folder, record, json.loads(line)["tensorboard"])
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield browser
    browser.quit()


def text_of(browser: Any) -> str:
    """What the page shows, the parts that TensorBoard keeps in shadow roots included."""
    script = (
        "const told = n => n.nodeType === 3 ? n.data : n.localName === 'style' || n.localName === 'script' ? '' :"
        "[...(n.shadowRoot ? n.shadowRoot.childNodes : []), ...n.childNodes].map(told).join(' ');"
        "return told(document.body)"
    )
    return str(browser.execute_script(script))


def severe(browser: Any) -> list[str]:
    """Errors in the browser's console."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_tensorboards_table_has_the_best_beside_the_last_and_trials_in_order(served: Served) -> None:
    wish = {"allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]}
    url = f"{served.tensorboard}/data/plugin/hparams/session_groups"
    wish |= {"startIndex": 0, "sliceSize": 100, "colParams": []}  # type: ignore[dict-item]

    def groups() -> list[dict[str, Any]]:
        _, answer = served.ask(url, "POST", wish)
        found = answer.get("sessionGroups", [])
        return found if len(found) == len(served.record.trials) else []

    found = {group["sessions"][0]["name"]: group for group in until(groups)}
    assert sorted(found) == ["trial-0000-recipe", *(f"trial-{number:04d}" for number in range(1, 8))]
    for name, number in (("trial-0000-recipe", 0), ("trial-0004", 4)):
        trial = served.record.trials[number]
        values = {value["name"]["tag"]: value["value"] for value in found[name]["metricValues"]}
        assert values["best_eval_loss"] == pytest.approx(trial.best_value)
        assert values["eval_loss"] == pytest.approx(trial.value)
    assert served.record.trials[4].best_value != served.record.trials[4].value, "it diverged after its best"


def test_tensorboards_layout_has_the_losses_of_all_trials(served: Served) -> None:
    _, layout = served.ask(f"{served.tensorboard}/data/plugin/custom_scalars/layout")
    (category,) = layout["category"]
    assert [chart["title"] for chart in category["chart"]] == ["eval_loss", "best_eval_loss", "train_loss"]
    for number in (0, 4):
        name = "trial-0000-recipe" if number == 0 else f"trial-{number:04d}"
        for chart in category["chart"]:
            (tag,) = chart["multiline"]["tag"]
            url = f"{served.tensorboard}/data/plugin/custom_scalars/scalars?run={name}&tag={tag}"
            curves = served.ask(url)[1]["tag_to_events"]
            assert list(curves) == [chart["title"]], "a chart has the curve it is named after, and no other"
            assert len(curves[chart["title"]]) == len(served.record.trials[number].points)
    _, plugins = served.ask(f"{served.tensorboard}/data/plugins_listing")
    assert plugins["custom_scalars"]["enabled"]


@needs_browser
def test_tensorboard_opens_on_the_losses_of_all_trials(served: Served, browser: Any) -> None:
    browser.get(served.tensorboard)

    def matches() -> set[str]:
        """How many curves the charts have."""
        return set(re.findall(r"Matches \(\s*(\d+)", text_of(browser)))

    until(lambda: matches() == {"7", "6"})  # of eight trials one has no evaluation, and one no finite value
    assert browser.current_url.endswith("#custom_scalars")
    text = until(lambda: "trial-0007" in (told := text_of(browser)) and told)
    shown = [text.index(name) for name in ("trial-0000-recipe", *(f"trial-{number:04d}" for number in range(1, 8)))]
    assert shown == sorted(shown)
    assert severe(browser) == []
