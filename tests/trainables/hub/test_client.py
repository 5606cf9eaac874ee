from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import text_rows, write_jsonl
from tests.programs.hub import Hub, serving
from tests.trainables.hub_calls import end, pinned, settings_for, start
from trainables.hub import sources
from trainables.sft import SFT
from tuner.contract import Preparation

CODE = """
from trainables.sft import SFT
from tuner.contract import InputError
try:
    SFT.prepare({settings!r}, {cache!r})
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "expected"), [("Qwen/Qwen3-8B", True), ("gpt2", True), ("./x/y", False), ("/x", False)]
)
def test_is_hub_id(name: str, expected: bool) -> None:
    assert sources.is_hub_id(name) is expected


@pytest.mark.parametrize("what", ["model", "data"])
def test_a_hub_id_offline_fails_at_once(tmp_path: Path, tiny_model: Path, tiny_data: Path, what: str) -> None:
    settings = {
        "model": {"model_name_or_path": "no-one/no-model" if what == "model" else str(tiny_model)},
        "data": {"train": "no-one/no-rows" if what == "data" else str(tiny_data / "text.jsonl")},
    }
    code = CODE.format(settings=settings, cache=str(tmp_path / "cache"))
    # A closed port of this machine takes the place of a network that is down
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert "as a hub id it is not in the cache; and the hub does not answer" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 20


FIRST, SECOND, ROWS = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with one base and one dataset; `main` and `v1` of the base stand for its first commit."""
    with serving(tmp_path_factory.mktemp("hub") / "hub") as running:
        shutil.copytree(tiny_model, running.commit("models", "org/base", FIRST, "main", "v1"), dirs_exist_ok=True)
        write_jsonl(running.commit("datasets", "org/rows", ROWS, "main") / "train.jsonl", text_rows())
        shutil.copytree(tiny_model, running.commit("models", "org/gated", FIRST, "main"), dirs_exist_ok=True)
        (running.root / "models" / "org" / "gated" / "gated").touch()
        yield running


@pytest.mark.slow
def test_the_driver_fetches_once_and_every_other_node_once(served: Hub, tiny_model: Path, tmp_path: Path) -> None:
    rows = {"validation": "org/rows", "split": "train[:75%]", "validation_split": "train[75%:]"}
    settings = settings_for(tokenizer_name_or_path="org/base", data=rows)
    commits = json.loads(end(start(served.url, tmp_path / "driver", "pin", settings)))
    assert commits == {"model.model_revision": FIRST, "data.revision": ROWS, "data.validation_revision": ROWS}
    # The branch moves while the search runs
    moved = served.commit("models", "org/base", SECOND, "main")
    shutil.copytree(tiny_model, moved, dirs_exist_ok=True)
    settings = pinned(settings, commits)
    assert not SFT.unpinned(settings)

    before = len(served.requests())
    made = json.loads(end(start(served.url, tmp_path / "driver", "prepare", settings, str(tmp_path / "data"))))
    asked = served.requests()[before:]
    assert any("model.safetensors" in line for line in asked) and not any(
        SECOND in line or "main" in line for line in asked
    )

    before = len(served.requests())
    preparation = Preparation(**{**made, "notes": tuple(made["notes"])})
    workers = [start(served.url, tmp_path / home, "work", settings, preparation) for home in ("driver", "node", "node")]
    assert [json.loads(end(worker)) for worker in workers] == ["a worker"] * 3
    asked = served.requests()[before:]
    # The driver's node downloads nothing; on the other node one of two workers downloads for both
    expected = {f"GET /org/base/resolve/{FIRST}/{file.name}" for file in tiny_model.iterdir()}
    assert Counter(line for line in asked if "/resolve/" in line and line.startswith("GET")) == Counter(expected)
    assert len([line for line in asked if "/tree/" in line]) == 1


@pytest.mark.parametrize(
    ("model", "method", "told"),
    [
        ({"model_revision": "v9"}, "pin", "org/base: the hub has no revision 'v9' of it"),
        ({"model_name_or_path": "org/none"}, "pin", "the hub has no model of this name, or none that"),
        ({"data": {"revision": "v9"}}, "pin", "org/rows: the hub has no revision 'v9' of it"),
        ({"data": {"validation": "org/none"}}, "pin", "the hub has no dataset of this name"),
        ({"model_revision": "e" * 40}, "prepare", "org/base: the hub has no revision 'eeee"),
        ({"model_name_or_path": "org/gated"}, "prepare", "org/gated: is gated: the hub does not give it"),
        ({"model_name_or_path": "org/gated"}, "prepare", "set HF_TOKEN on every node"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses(served: Hub, tmp_path: Path, model: dict[str, Any], method: str, told: str) -> None:
    more = [str(tmp_path / "data")] if method == "prepare" else []
    assert told in end(start(served.url, tmp_path / "home", method, settings_for(**model), *more))


@pytest.mark.slow
def test_without_a_hub_the_cache_answers(served: Hub, tmp_path: Path) -> None:
    settings = settings_for(model_revision="v1")
    commits = json.loads(end(start(served.url, tmp_path / "home", "pin", settings)))
    settings = pinned(settings, commits)
    json.loads(end(start(served.url, tmp_path / "home", "prepare", settings, str(tmp_path / "data"))))

    nowhere = "http://127.0.0.1:9"
    again = settings_for(model_revision="v1")
    assert json.loads(end(start(nowhere, tmp_path / "home", "pin", again)))["model.model_revision"] == FIRST
    made = json.loads(end(start(nowhere, tmp_path / "home", "prepare", settings, str(tmp_path / "again"))))
    assert made["tokens"] > 0
    # A cached commit of the rows is not taken for another one
    other = pinned(settings, {"data.revision": "d" * 40})
    told = end(start(nowhere, tmp_path / "home", "prepare", other, str(tmp_path / "other")))
    assert f"org/rows: no such folder, and as a hub id it is not in the cache at {'d' * 40}" in told
