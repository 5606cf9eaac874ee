from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainables.data import hub

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
    assert hub.is_hub_id(name) is expected


@pytest.mark.parametrize("what", ["model", "data"])
def test_a_hub_id_offline_fails_at_once(tmp_path: Path, tiny_model: Path, tiny_data: Path, what: str) -> None:
    settings = {
        "model": {"model_name_or_path": "no-one/no-model" if what == "model" else str(tiny_model)},
        "data": {"train": "no-one/no-rows" if what == "data" else str(tiny_data / "text.jsonl")},
    }
    code = CODE.format(settings=settings, cache=str(tmp_path / "cache"))
    # A closed port of this machine stands for a network that is not there
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert "nor is the hub reachable" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 20
