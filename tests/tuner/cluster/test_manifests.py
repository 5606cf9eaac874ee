"""The search as a RayJob manifest and as a Slurm script: their exact text, and that their readers accept it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.integration.conftest import SPACE, TOY
from tests.tuner.report import golden
from tuner.cli import run
from tuner.cluster.slurm import Allocation, batch_script
from tuner.results.ledger import Kind, read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("TUNER_SHARED_FOLDER") or ROOT.parent / "shared")
SCHEMA = SHARED / "kuberay" / "rayjob-v1.schema.json"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "search.yaml"
    settings = {
        "data": {"train": "train.jsonl"},
        "model": {"model_name_or_path": "org/base"},
        "train": {"max_steps": 10},
        "search": {"num_trials": 4},
        "run": {"name": "First.one"},
    }
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    monkeypatch.chdir(tmp_path)
    return path


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["submit", *arguments]) == 0
    return capsys.readouterr().out


KUBERAY = ("search.yaml", "--kuberay", "--image", "registry/tuner:0.1.0", "--nodes", "4")
SHARED_VOLUME = ("--volume", "shared:/shared", "--storage-path", "/shared/runs")
BUCKET = ("--storage-path", "s3://bucket/runs", "--secret", "tokens", "--min-nodes", "0", "--hours", "2")


def test_the_exact_rayjob(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {
        "a shared volume": written(capsys, *KUBERAY, *SHARED_VOLUME),
        "a bucket, and a cluster that grows": written(capsys, *KUBERAY, *BUCKET),
    }
    golden.check("submit_kuberay.txt", parts)


def strict(schema: Any) -> Any:
    """The schema with unknown keys forbidden: the API server drops them without a message."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        # The API server itself checks metadata, and the schema leaves it empty
        closed |= {} if open_ or not schema["properties"] else {"additionalProperties": False}
    return closed


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"the operator's schema is not at {SCHEMA}")
@pytest.mark.parametrize("storage", [SHARED_VOLUME, BUCKET])
def test_the_operator_takes_the_rayjob(
    file: Path, capsys: pytest.CaptureFixture[str], storage: tuple[str, ...]
) -> None:
    schema = strict(json.loads(SCHEMA.read_text()))
    config, job = yaml.safe_load_all(written(capsys, *KUBERAY, *storage))
    jsonschema.Draft202012Validator(schema).validate(job)
    assert (config["kind"], job["kind"], job["apiVersion"]) == ("ConfigMap", "RayJob", "ray.io/v1")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["activeDeadlineSeconds"] and spec["backoffLimit"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    mounted = head["template"]["spec"]["volumes"][0]["configMap"]
    assert mounted["name"] == config["metadata"]["name"]
    assert {item["key"] for item in mounted["items"]} == config["data"].keys()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**job, "spec": {**spec, "activeDeadline": 1}})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--storage-path", "/shared/runs"), "gone with them"),
        (("--storage-path", "/elsewhere", "--volume", "shared:/shared"), "does not lie on the volume"),
        (("--storage-path", "/shared/runs", "--volume", "shared"), "is no volume"),
        (("--storage-path", "runs"), "is a relative path"),
        (("--slurm",), "one of --kuberay and --slurm"),
        (("--storage-path", "s3://b/runs", "--image", ""), "no image"),
    ],
)
def test_a_rayjob_that_could_not_work(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    words = KUBERAY if "--image" not in arguments else [word for word in KUBERAY if word not in KUBERAY[2:4]]
    assert run(["submit", *words, *arguments]) == 2
    assert told in capsys.readouterr().err


def test_data_too_large_for_a_manifest(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.jsonl").write_text('{"text": "a"}\n' * 100_000)
    assert run(["submit", *KUBERAY, *SHARED_VOLUME]) == 2
    assert "kB would travel in the manifest" in capsys.readouterr().err


def test_the_exact_batch_script() -> None:
    asked = Allocation(nodes=2, gpus=4, cpus=32, hours=1.5, partition="gpu", account="lab")
    script = batch_script(
        "first",
        ["my search.yaml", "--name", "first"],
        asked,
        python=Path("/envs/a/bin/python"),
        folder=Path("/home/me"),
    )
    golden.check("submit_slurm.txt", {"two nodes": script})
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def _slurm_answers() -> bool:
    return bool(shutil.which("sbatch")) and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _slurm_answers(), reason="no Slurm answers here: sbatch and a running slurmctld are needed")
def test_slurm_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    search = tmp_path / "search.yaml"
    search.write_text(yaml.safe_dump({"search": {"num_trials": 3, "space": SPACE}, "run": {"program": TOY}}))
    text = written(
        capsys, str(search), "--slurm", "--name", "slurmed", "--storage-path", str(tmp_path), "--hours", "0.1",
        "--gpus-per-node", "0", "--cpus-per-node", "2",
    )  # fmt: skip
    script = tmp_path / "job.sh"
    script.write_text(text)
    done = subprocess.run(["sbatch", "--wait", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    log = "".join(path.read_text() for path in tmp_path.glob("slurmed-*.log"))
    assert done.returncode == 0, log
    record = SearchRecord.fold(read_ledger(tmp_path / "slurmed" / "trials.jsonl"))
    assert record.finished and len(record.ended) == 3
    assert any(event.event is Kind.FINISHED for event in read_ledger(tmp_path / "slurmed" / "trials.jsonl"))
