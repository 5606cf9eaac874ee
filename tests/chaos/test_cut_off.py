"""Clusters that ask for a token, ask for none or have ended, joined in an environment with dead proxies: a probe that
fails is not taken for an answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.chaos.faults import Count
from tests.integration.conftest import SPACE, TOY
from tests.programs import heads
from tests.programs.answering import closed_port, listening

pytestmark = pytest.mark.chaos
ROOT = Path(__file__).resolve().parents[2]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def search(folder: Path, name: str = "joined", **environment: str) -> subprocess.CompletedProcess[str]:
    """Starts a search without an address, in an environment with dead proxies."""
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump({"search": {"num_trials": 2, "space": SPACE}, "run": {"program": TOY}}))
    # Ray sets RAY_AUTH_MODE in a process that has started a Ray of its own, as other tests do in this one
    kept = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "ray_auth_mode")}
    return subprocess.run(
        [sys.executable, "-m", "tuner", "search", str(file), "--storage-path", str(folder), "--name", name],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "mode"), [("silent", "disabled"), ("closed", "token")])
def test_a_cluster_is_joined_past_dead_proxies_with_a_token_or_without(
    tmp_path: Path, fault: Count, kind: str, mode: str
) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(0o600)
    auth = {"RAY_AUTH_TOKEN_PATH": str(token)}
    with listening() as proxy, heads.running(**auth, RAY_AUTH_MODE=mode) as head:
        through = dict.fromkeys(PROXIES, proxy.url if kind == "silent" else f"http://{closed_port()}")
        # The other mode in the environment, as a process leaves it that has started a Ray of its own, misleads nobody
        misleading = {"RAY_AUTH_MODE": "token" if mode == "disabled" else "disabled"}
        for name, told in {"joined": {}, "misled": misleading}.items():
            done = search(tmp_path, name, **auth, **through, **head.environment, **told, RAY_ADDRESS="auto")
            assert done.returncode == 0, done.stderr
            assert "2 of 2 trials" in done.stderr and proxy.met == []
        if mode == "token":
            began = time.monotonic()
            none = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none"), "RAY_ADDRESS": head.address}
            refused = search(tmp_path, "refused", **none, **through)
            assert refused.returncode == 2 and "Traceback" not in refused.stderr
            assert f"the Ray cluster at {head.address} asks for a token, and there is none here" in refused.stderr
            assert time.monotonic() - began < 90
            fault("a cluster that asks for a token, and none here")
    fault(f"a proxy that is {kind}, before a cluster")


def test_this_machines_own_ray_starts_past_dead_proxies(tmp_path: Path, fault: Count) -> None:
    with listening() as proxy:
        done = search(tmp_path, **dict.fromkeys(PROXIES, proxy.url), RAY_ADDRESS=" ", RAY_grpc_enable_http_proxy="1")
        assert done.returncode == 0, done.stderr
        asked = [client.recv(4096) for client in proxy.met]
        # Ray's dashboard asks which cloud it runs in, and waits for no answer. Nothing else went to the proxy
        assert all(b"Host: 169.254.169.254" in one or b"Host: metadata.google.internal" in one for one in asked), asked
    fault("a proxy that is silent, before a cluster")


def test_a_cluster_that_has_ended_and_left_its_address_behind(tmp_path: Path, fault: Count) -> None:
    place = closed_port()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(place)
    done = search(tmp_path, RAY_ADDRESS="auto", RAY_TMPDIR=str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    # Where one other Ray runs on this machine, Ray takes that for `auto`
    told = rf"no Ray cluster answers at \S+:{place.rpartition(':')[2]} "
    assert re.search(told, done.stderr) or "asks for a token" in done.stderr, done.stderr
    assert not (tmp_path / "joined").exists()
    fault("the address of a cluster that has ended")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://127.0.0.1:10001", "a search does not run through a Ray client"),
        ("http://127.0.0.1:8265", "is the address of a dashboard"),
        ("nonsense", "is no address of a Ray cluster"),
    ],
)
def test_what_is_no_clusters_address_is_refused_before_anything(tmp_path: Path, address: str, told: str) -> None:
    done = search(tmp_path, RAY_ADDRESS=address)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "joined").exists()
