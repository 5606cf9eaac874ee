"""Trackers with their real libraries, offline: they get a search made by hand, which is read back with the same
libraries."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.cli import run
from tuner.contract import InputError, Reason, Verdict
from tuner.results.ledger import Event
from tuner.results.records import SearchRecord
from tuner.watch.trackers import TRACKERS, Tracker, Tracking, base, load_tracker, require
from tuner.watch.trackers.base import Ending, Run

ROOT = Path(__file__).parents[3]


def installed(name: str) -> pytest.MarkDecorator:
    module = TRACKERS[name][1]
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"no {module} in this environment")


def track(makers: Mapping[str, Callable[[], Tracker]], events: list[Event]) -> tuple[SearchRecord, list[str]]:
    """Gives trackers all events of a search; returns its record, and the notes for the user."""
    record, notes = SearchRecord(), list[str]()
    tracking = Tracking(makers, record, notes.append)
    for event in events:
        record.apply(event)
        tracking(event)
    tracking.close()
    return record, notes


def whole_search(name: str, folder: Path) -> SearchRecord:
    record, notes = track({name: partial(load_tracker(name), "first", folder)}, searches.finished().events)
    assert notes == []
    return record


def in_tensorboard(number: int) -> str:
    """The name of a trial's first attempt."""
    return "trial-0000-recipe" if number == 0 else f"trial-{number:04d}"


def test_tensorboard_draws_every_trial(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = whole_search("tensorboard", tmp_path)
    assert {p.name for p in (tmp_path / "tensorboard").iterdir()} == {in_tensorboard(n) for n in record.trials}
    layouts = 0
    for number, trial in record.trials.items():
        drawn = EventAccumulator(str(tmp_path / "tensorboard" / in_tensorboard(number))).Reload()
        losses = {e.step: e.value for e in drawn.Scalars("eval_loss")} if trial.points else {}
        measured = {p.step: p.value for p in trial.points if p.value is not None}
        assert losses == pytest.approx(measured, rel=1e-6, nan_ok=True)
        bests = [e.value for e in drawn.Scalars("best_eval_loss")] if trial.best else []
        assert bests == pytest.approx([min(trial.curve[: n + 1]) for n in range(len(trial.curve))], rel=1e-6)
        assert b"learning_rate" in drawn.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        layouts += "custom_scalars__config__" in drawn.Tags()["tensors"]
    assert layouts == 1, "one layout is enough, and TensorBoard merges more of them into longer pages"


def test_tensorboards_best_rises_where_more_is_better(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tape = searches.Tape()
    better = {"name": "exact_match", "direction": "maximize"}
    tape.events[0] = replace(tape.events[0], details={**tape.events[0].details, "objectives": [better]})
    tape.start(0, searches.RECIPE_PARAMS)
    for step, value in enumerate((0.25, 0.5, 0.125), 1):
        tape.evaluate(0, step, None)
        tape.events[-1] = replace(tape.events[-1], metrics={"exact_match": value})
    tape.end(0, Verdict(Reason.BUDGET))
    _, notes = track({"tensorboard": partial(load_tracker("tensorboard"), "x", tmp_path)}, tape.events)
    drawn = EventAccumulator(str(tmp_path / "tensorboard" / in_tensorboard(0))).Reload()
    assert notes == [] and [e.value for e in drawn.Scalars("best_exact_match")] == [0.25, 0.5, 0.5]
    (layout,) = drawn.Tensors("custom_scalars__config__")
    assert b"best_exact_match$" in layout.tensor_proto.string_val[0]


@installed("mlflow")
def test_mlflow_has_a_run_a_trial_under_one_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    record = whole_search("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("tuner")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    assert len(parents) == 1 and parents[0].info.run_name == "first" and parents[0].info.status == "FINISHED"
    assert record.best and parents[0].data.metrics["best_eval_loss"] == record.best.best_value
    trials = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert {one.info.run_name for one in trials} == {f"trial {n}" for n in record.trials}
    for one in trials:
        trial = record.trials[int(one.info.run_name.split()[1])]
        assert one.data.params["learning_rate"] == str(trial.params["learning_rate"])
        assert one.data.tags["tuner.ending"] == f"{trial.status}: {trial.reason}"
        history = client.get_metric_history(one.info.run_id, "train_loss")
        assert {m.step for m in history} == {p.step for p in trial.points if p.train_loss is not None}


@installed("wandb")
def test_wandb_writes_offline_runs_of_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    record = whole_search("wandb", tmp_path)
    import wandb

    wandb.teardown()  # its service may still be writing what is finished
    written = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == len(record.trials) + 1
    together = b"".join(place.read_bytes() for place in written)
    assert all(f"trial {number}".encode() in together for number in record.trials)
    assert b"eval_loss" in together and b"rung" in together
    assert all(b"first" in place.read_bytes() for place in written), "every run is in the search's group"


@installed("trackio")
def test_trackio_keeps_a_run_a_trial(tmp_path: Path) -> None:
    """In a process of its own: trackio reads where it keeps its data when it is imported."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.tuner.watch.test_trackers import whole_search\n"
        "record = whole_search('trackio', Path(sys.argv[1]))\n"
        "import trackio\n"
        "runs = {run.name: run for run in trackio.Api().runs('tuner')}\n"
        "assert set(runs) == {'first', *(f'first trial {n}' for n in record.trials)}, set(runs)\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "logs = SQLiteStorage.get_logs('tuner', f'first trial {record.best.number}')\n"
        "assert [l['step'] for l in logs if 'eval_loss' in l] == [p.step for p in record.best.points]\n"
    )
    environment = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    import os

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


class Broken:
    """A tracker whose server is gone, or was never there."""

    def __init__(self, at: str) -> None:
        self._at = at
        self._maybe("init")

    def start(self, run: Run) -> None:
        self._maybe("start")

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._maybe("log")

    def end(self, run: Run, ending: Ending) -> None: ...

    def close(self, summary: Mapping[str, Any]) -> None:
        self._maybe("close")

    def _maybe(self, where: str) -> None:
        if where == self._at:
            raise SystemExit("no key") if where == "init" else ConnectionError("the server is gone\nreally")


@pytest.mark.parametrize("at", ["init", "start", "log", "close"])
def test_a_tracker_that_fails_is_noted_once_and_the_others_go_on(tmp_path: Path, at: str) -> None:
    makers = {"broken": lambda: Broken(at), "tensorboard": partial(load_tracker("tensorboard"), "first", tmp_path)}
    record, notes = track(makers, searches.finished().events)
    what = "SystemExit: no key" if at == "init" else "ConnectionError: the server is gone"
    assert notes == [f"the tracker broken failed, and the search goes on without it: {what}"]
    assert len(list((tmp_path / "tensorboard").iterdir())) == len(record.trials)


def test_a_slow_tracker_does_not_hold_up_the_search() -> None:
    class Slow(Broken):
        def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
            time.sleep(60)

    record, notes = SearchRecord(), list[str]()
    tracking = Tracking({"slow": lambda: Slow("nowhere")}, record, notes.append)
    since = time.monotonic()
    for event in searches.finished().events:
        record.apply(event)
        tracking(event)
    assert time.monotonic() - since < 5 and notes == []


def test_trackers_that_hang_are_waited_for_together() -> None:
    class Hangs(Broken):
        def start(self, run: Run) -> None:
            time.sleep(60)

    notes = list[str]()
    tracking = Tracking({name: lambda: Hangs("nowhere") for name in "abc"}, SearchRecord(), notes.append)
    tracking(searches.finished().events[0])
    since = time.monotonic()
    for event in searches.finished().events:
        tracking._record.apply(event)
        tracking(event)
    tracking.close(0.5)
    assert time.monotonic() - since < 1.5
    assert [note[-37:] for note in notes] == ["it was not done 0.5 s after the search"[-37:]] * 3


def test_a_tracker_that_falls_behind_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of weeks beside a server that hangs would gather every event in memory."""
    monkeypatch.setattr(base, "MOST_WAITING", 5)

    class Hangs(Broken):
        def start(self, run: Run) -> None:
            time.sleep(60)

    record, notes = SearchRecord(), list[str]()
    tracking = Tracking({"far": lambda: Hangs("nowhere")}, record, notes.append)
    for event in searches.finished().events:
        record.apply(event)
        tracking(event)
    assert notes == ["the tracker far failed, and the search goes on without it: 5 events wait for it"]


def test_an_interrupted_trial_and_its_next_attempt_are_two_runs(tmp_path: Path) -> None:
    whole: dict[str, Callable[[], Tracker]] = {"tensorboard": partial(load_tracker("tensorboard"), "first", tmp_path)}
    track(whole, searches.resumed().events)
    names = {p.name for p in (tmp_path / "tensorboard").iterdir()}
    assert any(name.endswith("-attempt-2") for name in names)


@pytest.mark.parametrize("before", ["parked", "lost", "interrupted", "an earlier session's"])
def test_a_trial_that_ends_without_a_further_attempt_ends_its_run_once(tmp_path: Path, before: str) -> None:
    tape = searches.Tape()
    if before == "an earlier session's":
        record, notes = SearchRecord(), list[str]()
        tape.start(0, searches.RECIPE_PARAMS)
        tape.end(0, Verdict(Reason.BUDGET))
        record.apply(tape.events[0])
        record.apply(tape.events[1])
        tracking = Tracking({"tensorboard": partial(load_tracker("tensorboard"), "x", tmp_path)}, record, notes.append)
        record.apply(tape.events[2])
        tracking(tape.events[2])
        tracking.close()
    else:
        tape.start(0, searches.RECIPE_PARAMS)
        tape.evaluate(0, 4, 4.5)
        if before == "parked":
            tape.park(0)
        elif before == "lost":
            tape.retry(0, Reason.INFRASTRUCTURE, message="gone")
        else:
            tape.interrupt(0)
        tape.end(0, Verdict(Reason.USER))
        _, notes = track({"tensorboard": partial(load_tracker("tensorboard"), "x", tmp_path)}, tape.events)
    assert notes == []


def test_a_missing_library_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", ("tuner.watch.trackers.wandb:WeightsAndBiases", "no_such_wandb", "wandb"))
    require(["tensorboard"])
    with pytest.raises(InputError) as caught:
        require(["tensorboard", "wandb"])
    assert "python -m pip install wandb" in str(caught.value) and caught.value.where == "run.trackers"


def test_a_missing_library_ends_a_command_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TRACKERS, "mlflow", ("tuner.watch.trackers.mlflow:MLflow", "no_such_mlflow", "mlflow-skinny"))
    for command in ("plan", "search"):
        assert run([command, "--set", "run.trackers=[tensorboard, mlflow]", "--storage-path", "runs"]) == 2
        told = capsys.readouterr().err
        assert "the library of mlflow is not installed" in told and "python -m pip install mlflow-skinny" in told
    assert not (tmp_path / "runs").exists()


def test_naming_and_loading_trackers_imports_no_library() -> None:
    code = (
        "import sys\nfrom tuner.watch.trackers import TRACKERS, load_tracker\n"
        "[load_tracker(name) for name in TRACKERS]\n"
        "print([name for name in ('torch', 'tensorboard', 'mlflow', 'wandb', 'trackio', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_tensorboard_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.tuner.watch.test_trackers import whole_search\n"
        f"whole_search('tensorboard', Path({str(tmp_path)!r}))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
