"""A search with base and rows on the hub, which is a server on this machine: what it pins, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import text_rows, write_jsonl
from tests.programs.answering import listening
from tests.programs.hub import Hub, serving

ROOT = Path(__file__).resolve().parents[2]
BASE, ROWS = "a" * 40, "c" * 40


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serving(tmp_path_factory.mktemp("hub") / "hub") as running:
        shutil.copytree(tiny_model, running.commit("models", "org/base", BASE, "main"), dirs_exist_ok=True)
        write_jsonl(running.commit("datasets", "org/rows", ROWS, "main") / "train.jsonl", text_rows())
        yield running


def search(
    url: str, folder: Path, *arguments: str, model: str = "org/base", name: str = "hub", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "tuner", "search", "--model", model, "--data", "org/rows", "--name", name,
            "--num-trials", "1", "--set", "train.max_steps=2", "--set", "data.max_length=64", *arguments,
        ],
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": url, "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0", **env,
        },
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.mark.slow
def test_a_search_keeps_to_the_commits_that_it_began_with(served: Hub, tmp_path: Path) -> None:
    done = search(served.url, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "hub"
    for written in (
        json.loads((folder / "resolved.json").read_text()),
        yaml.safe_load((folder / "best" / "train.yaml").read_text()),
    ):
        assert (written["model"]["model_revision"], written["data"]["revision"]) == (BASE, ROWS)
    assert f"A LoRA adapter for `org/base` at `{BASE}`" in (folder / "best" / "README.md").read_text()
    adapter = json.loads((folder / "best" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/base", BASE)
    weights = [line for line in served.requests() if line.startswith("GET") and "model.safetensors" in line]
    assert len(weights) == 1, "the worker found in the cache what the driver had fetched"
    # Named by commit, neither driver nor worker makes a request: a proxy that never answers would get it
    pins = ("--set", f"model.model_revision={BASE}", "--set", f"data.revision={ROWS}")
    with listening() as proxy:
        again = search("http://hub.invalid", tmp_path, *pins, name="again", http_proxy=proxy.url)
        assert again.returncode == 0, again.stderr
        assert proxy.met == []


@pytest.mark.parametrize(
    ("url", "model", "arguments", "told"),
    [
        (None, "org/base", ("--set", "model.model_revision=v9"), "org/base: the hub has no revision 'v9' of it"),
        (None, "org/none", (), "org/none: no such folder, and the hub has no model of this name"),
        (
            "http://127.0.0.1:9",
            "org/base",
            (),
            "org/base: no such folder, and as a hub id it is not in the cache; and the hub does not answer",
        ),
    ],
)
def test_what_the_hub_does_not_give_is_said_and_nothing_is_left(
    served: Hub, tmp_path: Path, url: str | None, model: str, arguments: tuple[str, ...], told: str
) -> None:
    done = search(url or served.url, tmp_path, *arguments, model=model)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "hub").exists()
