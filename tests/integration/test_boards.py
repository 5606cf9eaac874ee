"""What `tuner dashboard` serves of a finished search: the real servers, asked over HTTP and shown in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from tests.chaos.runs import finished_run, signed_settings, write_ledger
from tests.integration.test_watching import ROOT
from tests.programs.browser import browser as chromium
from tests.programs.browser import needs_browser, until
from tests.tuner.report import searches
from tests.tuner.watch.test_trackers import track
from tuner.config import Tpe, load_experiment
from tuner.driver.resolved_settings import digest_of
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord
from tuner.space import load_space
from tuner.study.study import Study
from tuner.watch.study_page import READ_ONLY
from tuner.watch.trackers import load_tracker

pytestmark = pytest.mark.slow  # what a browser shows comes in its own time


@dataclass(frozen=True)
class Served:
    folder: RunFolder
    record: SearchRecord
    optuna: str
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


def with_adapter(event: Event, number: int, place: str | None) -> Event:
    """The event; an evaluation of trial `number` names its adapter."""
    if event.event is not Kind.EVALUATION or event.number != number:
        return event
    return replace(event, details={**event.details, "adapter": place})


def study_of(folder: RunFolder) -> None:
    """Writes the study of a run folder from its ledger."""
    program = load_experiment().program_class
    values = {
        "lora_r": [8, 16, 32, 64],
        "effective_batch_size": [8, 16, 32, 64],
        "lora_alpha_mode": ["fixed", "2r", "rslora"],
    }
    drawn: dict[str, Any] = {"learning_rate": FloatDistribution(1e-5, 1, log=True)}
    drawn |= {name: CategoricalDistribution(choices) for name, choices in values.items()}
    records = list(folder.record().trials.values())
    for record in records:
        record.distributions = {name: distribution_to_json(distribution) for name, distribution in drawn.items()}
    rate = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}
    choices = {name: {"type": "choice", "values": choices} for name, choices in values.items()}
    space = load_space({"parameters": {**rate, **choices}}, program)
    Study(
        folder.study, name=folder.name, space=space, sampler=Tpe(), num_trials=8, seed=0,
        recipe=searches.RECIPE_PARAMS, records=records,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A finished search of eight trials, with every common ending, whose dashboards are served. Its study is that of an
    earlier version: it has no attributes."""
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    folder = RunFolder(finished_run(tmp_path_factory.mktemp("runs")))
    saved = folder.trial(1) / "adapter"
    (saved / "adapter_config.json").write_text('{"r": 64}')
    folder.log(1).write_text("what the libraries said of trial 1\n")
    events = [with_adapter(event, 1, folder.from_here(str(saved))) for event in searches.finished().events]
    write_ledger(folder.path, [signed_settings(event, digest_of(folder.resolved)) for event in events])
    study_of(folder)
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
        urls = json.loads(line)
        yield Served(folder, record, urls["optuna"].removesuffix("/dashboard"), urls["tensorboard"])
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page.driver


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


def attributes(told: list[dict[str, str]]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in told}


def test_the_study_says_what_the_search_is_made_of_and_how_it_ended(served: Served) -> None:
    status, study = served.ask(f"{served.optuna}/api/studies/0")
    told = attributes(study["user_attrs"])
    assert status == 200 and study["objective_names"] == ["eval_loss"]
    assert told["state"] == "failed: 8 of 8 trials ended; best: trial 1, eval_loss 4.312"
    settings = json.loads(served.folder.resolved.read_text())
    assert told["model"].startswith(f"model_name_or_path {settings['model']['model_name_or_path']}, dtype float32")
    assert f"train {settings['data']['train']}" in told["data"] and "train: 3,912 rows, 402,113 tokens" in told["data"]
    assert told["recipe"].startswith("learning_rate 0.0003, lora_r 16, ")
    assert told["budget"] == "8 trials of at most 100 steps"
    assert told["objective"] == "eval_loss (validation loss), less is better"


def test_a_trial_has_its_ending_its_curve_and_the_place_of_its_adapter(served: Served) -> None:
    trials = served.ask(f"{served.optuna}/api/studies/0")[1]["trials"]
    assert [trial["number"] for trial in trials] == list(served.record.trials)
    for shown in trials:
        trial, told = served.record.trials[shown["number"]], attributes(shown["user_attrs"])
        assert told["ending"] == trial.ending and told["reason"] == str(trial.reason)
        curve = {point["step"]: point["value"] for point in shown["intermediate_values"]}
        assert curve == {point.resource: point.value for point in trial.points if point.is_finite}
    assert attributes(trials[1]["user_attrs"])["adapter"] == "best"
    assert attributes(trials[2]["user_attrs"])["adapter"] == "none was saved"
    assert "lower train.per_device_train_batch_size" in attributes(trials[6]["user_attrs"])["remedy"]


def test_the_files_of_the_run_are_artifacts_and_nothing_else_is(served: Served) -> None:
    study = served.ask(f"{served.optuna}/api/studies/0")[1]
    files = {file["filename"]: file["artifact_id"] for file in study["trials"][1]["artifacts"]}
    for name, place in (("trial-0001.log", "logs"), ("adapter_model.safetensors", "best")):
        with urllib.request.urlopen(f"{served.optuna}/artifacts/0/1/{files[name]}", timeout=30) as answer:
            assert answer.read() == (served.folder.path / place / name).read_bytes()
    named = {file["filename"] for file in study["artifacts"]}
    assert {"experiment.yaml", "resolved.json", "manifest.json", "README.md"} <= named
    for number in ("0" * 8, files["trial-0001.log"][:-1]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served.optuna}/artifacts/0/1/{number}", timeout=30)
        assert refused.value.code == 404


def test_every_request_that_would_change_the_study_is_refused_with_the_reason(served: Served) -> None:
    import optuna_dashboard
    from optuna.storages import InMemoryStorage

    journal = served.folder.study.read_bytes()
    listing = sorted(path for path in served.folder.path.rglob("*"))
    routes = [(route.method, route.rule) for route in optuna_dashboard.wsgi(InMemoryStorage()).routes]
    writes = [(method, re.sub(r"<[^>]*>", "0", rule)) for method, rule in routes if method not in ("GET", "HEAD")]
    assert len(writes) >= 10 and ("PUT", "/api/studies/0/0/note") in writes
    for method, rule in writes:
        assert served.ask(served.optuna + rule, method, {"body": "x" * 200_000, "version": 1}) == (
            403, {"reason": READ_ONLY},
        )  # fmt: skip
    for rule in ("/api/studies", "/api/studies/0", "/api/studies/0/param_importances", "/api/meta"):
        assert served.ask(served.optuna + rule)[0] == 200
    assert served.folder.study.read_bytes() == journal
    assert sorted(path for path in served.folder.path.rglob("*")) == listing


@needs_browser
def test_the_browser_shows_a_trial_and_that_nothing_can_be_changed(served: Served, browser: Any) -> None:
    browser.get(f"{served.optuna}/dashboard/studies/0/trials?numbers=4")
    text = until(lambda: "User Attributes" in (told := text_of(browser)) and told)
    assert READ_ONLY in text and "diverged (2.1 times its first loss)" in text
    assert severe(browser) == []
    browser.get(f"{served.optuna}/dashboard/studies/0/note")
    edit = "button [data-testid='EditIcon']"
    until(lambda: browser.find_elements("css selector", edit))[0].click()
    until(lambda: browser.find_elements("css selector", "textarea"))[0].send_keys("my note")
    browser.find_element("xpath", "//button[contains(., 'Save')]").click()
    until(lambda: any("403" in entry for entry in severe(browser)))
    assert READ_ONLY in text_of(browser) and not any(" 500 " in entry for entry in severe(browser))


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
