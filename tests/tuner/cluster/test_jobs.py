"""Addresses at which something else than a cluster answers; a real cluster is in
tests/integration/test_submit.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata

import pytest

from tuner.cluster.jobs import Cluster
from tuner.contract import InputError

ANSWERS = {
    "/old": (200, json.dumps({"version": "4", "ray_version": "2.9.3"})),
    "/page": (200, "<html>a proxy's page</html>"),
    "/gone": (404, "not found"),
    "/locked": (401, "Unauthorized: Missing authentication token"),
    "/wrong": (403, "Forbidden: Invalid authentication token"),
}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code, body = ANSWERS[self.path.removesuffix("/api/version")]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/old", f"the cluster runs Ray 2.9.3, and this machine has {metadata.version('ray')}"),
        ("/page", "no Ray job server answers"),
        ("/gone", "no Ray job server answers"),
        ("/locked", "asks for a token, and there is none here"),
        ("/wrong", "does not accept the token"),
    ],
)
def test_what_is_no_cluster_for_us(server: str, place: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        Cluster(server + place)
    assert told in str(refused.value) and refused.value.remedy


@pytest.mark.parametrize(
    "address", ["head:8265", "10.0.0.1:6379", "ftp://head", "http://", "http://head:port", "ray://h:1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match=r"no address|Port could not"):
        Cluster(address)
