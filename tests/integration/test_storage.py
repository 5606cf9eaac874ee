"""Runs in an object store: a real S3-compatible server in a process of its own, and working copies that are lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.conftest import S3_ENVIRONMENT, SPACE, TOY, s3_server, s3_uri
from tests.programs.toy import Toy
from trainables import states
from tuner.cli import run
from tuner.config import load_experiment
from tuner.config.paths import storage_folder, storage_uri
from tuner.contract import Assignment, InputError, Preparation, Resume
from tuner.driver.session import resume_search, run_search
from tuner.results import storage
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord
from tuner.worker.store_sync import arrived, synced


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder whose files the running server has in "bucket"."""
    root = tmp_path_factory.mktemp("s3")
    with s3_server(root) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in S3_ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("PORT_OF_S3", str(port))
        yield root / "bucket"


@pytest.fixture
def uri(bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage path for this test alone; working copies are in the test's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return s3_uri(tmp_path.name, int(os.environ["PORT_OF_S3"]))


def search(uri: str, name: str, num_trials: int, listeners: Any = (), **more: Any) -> Any:
    flags = {"run.program": TOY, "run.name": name, "run.storage_path": uri, "search.space": SPACE}
    flags |= {"search.num_trials": num_trials, "run.keep_adapters": 1, **more}
    return run_search(load_experiment(None, (), flags), listeners)


def lose(tmp_path: Path) -> None:
    """Deletes the working copies, as if the machine's disk was lost."""
    shutil.rmtree(tmp_path / "tuner-storage")


def test_a_run_is_in_the_store_and_outlives_its_driver(
    ray: None, bucket: Path, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = search(uri, "first", 4)
    kept = bucket / tmp_path.name / "first"
    assert (kept / "trials.jsonl").read_bytes() == (outcome.path / "trials.jsonl").read_bytes()
    assert (kept / "best" / "manifest.json").is_file()
    assert (kept / "adapters" / f"{outcome.record.best.number:04d}" / "adapter" / "adapter.json").is_file()
    assert not storage.is_written(outcome.path)

    lose(tmp_path)
    assert run(["status", "first", "--storage-path", uri, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["finished"] and told["trials"] == 4
    assert run(["export", "first", "--storage-path", uri, "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "adapter.json").is_file()

    lose(tmp_path)
    with pytest.raises(InputError, match="is already there"):
        search(uri, "first", 4)
    again = resume_search(storage_folder(uri), "first", num_trials=6)
    assert len(again.record.ended) == 6 and again.record.sessions == 2
    assert len(SearchRecord.fold(read_ledger(kept / "trials.jsonl")).ended) == 6


def test_events_are_there_while_the_search_runs(ray: None, bucket: Path, uri: str, tmp_path: Path) -> None:
    seen: list[int] = []
    ledger = bucket / tmp_path.name / "slow" / "trials.jsonl"

    def listen(event: Any) -> None:
        seen.append(len(ledger.read_text().splitlines()) if ledger.is_file() else 0)

    search(uri, "slow", 2, [listen], **{"train.pace": 0.5, "scheduler.kind": "none"})
    # Only complete lines, never fewer than before, and some of them long before the end
    assert seen == sorted(seen) and 0 < seen[-2] < len(seen)


def test_two_drivers_do_not_write_one_run(bucket: Path, uri: str, tmp_path: Path) -> None:
    folder = storage_folder(uri) / "shared"
    folder.mkdir(parents=True)
    first = storage.Mirror(folder)
    assert storage.is_written(folder)
    with pytest.raises(InputError, match="is being written by another driver"):
        storage.Mirror(folder)
    first.close()
    assert not storage.is_written(folder)
    storage.Mirror(folder).close()


def test_rows_come_to_a_node_and_adapters_go_from_it(bucket: Path, uri: str, tmp_path: Path) -> None:
    """A program on a node that never saw the driver's folder."""
    run_folder = storage_folder(uri) / "far"
    (run_folder / "data").mkdir(parents=True)
    (run_folder / "data" / "rows.arrow").write_bytes(b"rows")
    storage.push(run_folder / "data")
    lose(tmp_path)

    preparation = arrived(Preparation(str(run_folder / "data")))
    assert (run_folder / "data" / "rows.arrow").read_bytes() == b"rows"
    program = synced(Toy({"train": {"max_steps": 9}, "unprepared": ""}, preparation), preparation)
    place = run_folder / "adapters" / "0003"
    assignment = Assignment(3, {"learning_rate": 1e-2}, 0, (0.5, 1.0), str(place))
    program.start(assignment)
    evaluation = program.step()
    there = bucket / tmp_path.name / "far" / "adapters" / "0003" / "adapter" / "adapter.json"
    assert json.loads(there.read_text())["loss"] == evaluation.eval_loss, asdict(evaluation)

    lose(tmp_path)
    resume = Resume(evaluation.step, evaluation.eval_loss, (str(place),))
    fresh = str(run_folder / "adapters" / "0003-2")
    setup = program.start(Assignment(3, {"learning_rate": 1e-2}, 0, (0.5, 1.0), fresh, attempt=2, resume=resume))
    assert setup.resumed_step == evaluation.step, "the next attempt goes on from what the first left"


ROOT = Path(__file__).resolve().parents[2]


def packed(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Runs the embedded example on an engine, in processes of their own whose working copies are in the test's
    folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
        "RAY_TMPDIR": "/tmp",
        states.EVERY: "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", "search", *arguments], env=environment, cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_packed_trials_go_on_from_states_in_the_store(bucket: Path, uri: str, tmp_path: Path) -> None:
    """The machine is lost in the middle, its disk with it; another one goes on from what its engine had sent."""
    first = packed(
        tmp_path, "--name", "packed", "--storage-path", uri, "--num-trials", "2", "--trials-per-gpu", "2",
        "--scheduler", "none", "--sampler", "random", "--set", "train.max_steps=60",
        "--set", "data.max_validation_rows=32",
    )  # fmt: skip
    kept = bucket / tmp_path.name / "packed"
    ledger = kept / "trials.jsonl"
    deadline = time.monotonic() + 240
    while not ledger.exists() or ledger.read_text().count('"event":"evaluation"') < 4:
        assert first.poll() is None and time.monotonic() < deadline, first.stderr and first.stderr.read()
        time.sleep(0.2)
    family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, 20)
    assert {f.parts[-3] for f in kept.glob("adapters/*/state/state.safetensors")} == {"0000", "0001"}
    lose(tmp_path)
    filesystem, place = storage.opened(f"{uri}/packed")
    with filesystem.open_output_stream(f"{place}/{storage.LOCK}") as lock:
        lock.write(b'{"holder": "", "time": 0}')  # what its driver said lapses by itself, after minutes

    again = packed(tmp_path, "--resume", "packed", "--storage-path", uri)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    record = SearchRecord.fold(read_ledger(ledger))
    assert [trial.attempt for trial in record.ended] == [2, 2]
    assert all(trial.setup["resumed_step"] > 0 for trial in record.ended)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda uri: uri.replace("bucket", "nowhere"), "cannot be written and read"),
        (lambda uri: uri.replace("s3://", "s4://"), "cannot be opened"),
    ],
)
def test_a_store_that_is_none_is_said_before_anything_runs(
    bucket: Path, uri: str, tmp_path: Path, change: Callable[[str], str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        search(change(uri), "first", 1)


@pytest.mark.parametrize(
    "place", ["s3://bucket/runs", "gs://b/r?anonymous=true", "s3://b/r?endpoint_override=h:1&scheme=http"]
)
def test_a_working_copy_knows_its_uri(place: str) -> None:
    assert storage_uri(storage_folder(place)) == place
    assert storage_uri(storage_folder(place) / "first" / "best") == f"{place}/first/best"
    assert storage_uri(Path("/home/me/runs/first")) is None
    assert storage_uri(Path("/tmp/tuner-storage/runs/first")) is None, "a folder that somebody called so"
