"""A head node is ended and started anew while a search on it is followed. Other faults of the connection are in
tests/tuner/cluster/test_events.py."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.integration.conftest import SPACE, TOY
from tests.programs import heads
from tests.programs.heads import ROOT

pytestmark = pytest.mark.slow  # two clusters, one after the other


def test_a_follower_is_told_that_the_head_was_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "search.yaml"
    search = {"num_trials": 8, "space": SPACE}
    file.write_text(yaml.safe_dump({"train": {"pace": 1.0}, "search": search, "run": {"program": TOY}}))

    def tuner(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", *words], cwd=ROOT, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    with heads.running(dashboard=True, **own) as head:
        order = ("submit", str(file), "--name", "lost", "--storage-path", str(tmp_path / "runs"))
        following = tuner(*order, "--address", head.dashboard)
        assert any(": step " in line for line in following.stderr or ()), "it is followed"
    with heads.running(dashboard=True, page=urlsplit(head.dashboard).port, **own):
        began = time.monotonic()
        _, told = following.communicate(timeout=60)
        assert following.returncode == 2 and "no longer knows the job lost: its head was started anew" in told
        assert "submit --resume NAME" in told and "Traceback" not in told
        assert time.monotonic() - began < 30
        ledger = tmp_path / "runs" / "lost" / "trials.jsonl"
        assert '"evaluation"' in ledger.read_text(), "what was reported is in the run folder"
