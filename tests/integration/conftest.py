"""Fixtures: one real Ray for the tests that share it, shut down at their end, and a real S3-compatible server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tuner.config import load_experiment
from tuner.driver.session import Outcome, run_search
from tuner.ray_cluster.session import ray_session

TOY = "tests.programs.toy:Toy"
SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}


S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(root: Path) -> Iterator[int]:
    """Serves the folders below `root` as buckets, among them "bucket", which it makes; yields the port."""
    (root / "bucket").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rclone = str(Path(sys.executable).with_name("rclone"))
    keys = f"{S3_ENVIRONMENT['AWS_ACCESS_KEY_ID']},{S3_ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}"
    process = subprocess.Popen(
        [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, str(root)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def s3_uri(folder: str, port: int) -> str:
    return f"s3://bucket/{folder}?endpoint_override=127.0.0.1:{port}&scheme=http&region=x"


@pytest.fixture(scope="package")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(None, tmp_path_factory.mktemp("ray") / "driver.log"):
        yield


@pytest.fixture
def toy(ray: None, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a toy search named "toy" in the test's folder; keywords are dotted settings with "__" for the dot."""

    def run(listeners: Any = (), **settings: Any) -> Outcome:
        flags = {"run.program": TOY, "run.name": "toy", "run.storage_path": str(tmp_path), "search.space": SPACE}
        flags |= {name.replace("__", "."): value for name, value in settings.items()}
        return run_search(load_experiment(None, (), flags), listeners)

    return run
