"""Ray's token can be read by its owner alone, whatever wrote it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.ray_cluster.token import guard_token


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_alone(token: Path) -> None:
    before = os.umask(0)
    try:
        told = guard_token()
    finally:
        os.umask(before)
    assert str(token) in told and mode(token) == 0o600 and len(token.read_text()) == 64
    assert [p.name for p in token.parent.iterdir()] == ["auth_token"]
    again = token.read_text()
    assert guard_token() == "" and token.read_text() == again


def test_one_that_others_can_read_is_put_right_and_said(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("t" * 64)
    token.chmod(0o644)
    assert "yours alone now" in guard_token()
    assert mode(token) == 0o600 and token.read_text() == "t" * 64


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "x" * 64)])
def test_whoever_says_otherwise_is_left_alone(
    token: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert guard_token() == "" and not token.exists()


def test_a_local_ray_asks_for_it_and_listens_on_this_machine_alone(token: Path, tmp_path: Path) -> None:
    """Through the real Ray: the token is taken, a client without it is turned away, the dashboard is on loopback."""
    code = (
        "import sys, urllib.request, urllib.error; from pathlib import Path\n"
        "from tuner.ray_cluster.session import dashboard_url, ray_session\n"
        "with ray_session(None, Path(sys.argv[1])):\n"
        "    url = dashboard_url()\n"
        "    try: answer = urllib.request.urlopen(url + '/api/jobs/', timeout=20).status\n"
        "    except urllib.error.HTTPError as error: answer = error.code\n"
        "sys.stdout.write(f'{url} {answer}')"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], cwd=root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)}, timeout=120,
    )  # fmt: skip
    url, _, answer = done.stdout.partition(" ")
    assert url.startswith("http://127.0.0.1:") and answer == "401", done.stderr
    assert mode(token) == 0o600
