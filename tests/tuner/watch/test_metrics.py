"""Prometheus and Grafana, run for a search. Prometheus is the real one, where it is installed; in the place of Ray's
dashboard and of a node's metrics port is one server. Of Grafana there is a stand-in, which answers as it does when it
has started: what is tested is what it is given."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.runs import finished_run
from tuner.cli import run
from tuner.contract import InputError
from tuner.watch import metrics

TOKEN = "a-token-of-thirty-two-characters"
GRAFANA = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
given = {{name: value for name, value in os.environ.items() if name.startswith("GF_")}}
json.dump({{"words": sys.argv[1:], **given}}, open({told!r}, "w"))
HTTPServer((given["GF_SERVER_HTTP_ADDR"], int(given["GF_SERVER_HTTP_PORT"])), Health).serve_forever()
"""


class Node(BaseHTTPRequestHandler):
    """The service discovery of Ray's dashboard, which asks for the token, and a metrics port, which does not."""

    def do_GET(self) -> None:
        if self.path == "/api/prometheus/sd" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_response(401)
            self.end_headers()
            return
        host, port = self.server.server_address[:2]
        found = {
            "/api/prometheus/sd": ("application/json", json.dumps([{"targets": [f"{host!s}:{port}"]}])),
            "/metrics": ("text/plain", 'ray_tuner_trials{search="first",status="running"} 3\nray_other 1\n'),
        }
        kind, body = found[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/#/jobs/01000000"
    server.shutdown()


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urllib.parse.urlsplit(url).port or 0)) == 0


def asked(url: str, expression: str) -> list[dict[str, Any]]:
    place = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(place, timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_prometheus_collects_the_gauges_and_ends(page: str) -> None:
    with metrics.prometheus(page, TOKEN) as url:
        until(lambda: asked(url, "ray_tuner_trials"))
        (found,) = asked(url, "ray_tuner_trials")
        assert found["metric"]["search"] == "first" and found["value"][1] == "3"
        assert asked(url, "ray_other") == [], "only the search's own"
        with metrics.prometheus(page, TOKEN) as other:
            assert other != url, "its port is taken"
    assert not listens(url) and not listens(other)


def test_grafana_is_given_the_dashboard_and_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told.json"
    program = tmp_path / "bin" / "grafana"
    (tmp_path / "public").mkdir()
    program.parent.mkdir()
    program.write_text(GRAFANA.format(python=sys.executable, told=str(told)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with metrics.grafana("http://127.0.0.1:9", "a search") as url:
        given = json.loads(told.read_text())
        assert url == f"http://127.0.0.1:{given['GF_SERVER_HTTP_PORT']}/d/tuner?var-search=a%20search"
        assert given["words"] == ["server", "--homepath", str(tmp_path)] and given["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
        provisioning = Path(given["GF_PATHS_PROVISIONING"])
        (source,) = yaml.safe_load((provisioning / "datasources" / "tuner.yaml").read_text())["datasources"]
        assert source["type"] == "prometheus" and source["url"] == "http://127.0.0.1:9"
        (provider,) = yaml.safe_load((provisioning / "dashboards" / "tuner.yaml").read_text())["providers"]
        assert json.loads(Path(provider["options"]["path"], "grafana.json").read_text())["uid"] == "tuner"
    assert not listens(url) and not provisioning.exists()


def test_a_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo the disk is full; exit 3"]
    running = metrics._running("prometheus", command, "http://127.0.0.1:9/", tmp_path)
    with pytest.raises(InputError, match="prometheus does not start") as refused, running:
        raise AssertionError("it does not run")
    assert "the disk is full" in str(refused.value)


def test_a_program_ends_with_the_command_however_that_ends(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv on this machine")
    here = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys, time; from tuner.watch.metrics import _ended_with_us as e; "
         "p = subprocess.Popen(e(['sleep', '600'])); print(p.pid, flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert here.stdout
    started = int(here.stdout.readline())
    time.sleep(0.5)  # setpriv has become sleep
    here.kill()
    here.wait()
    until(lambda: not Path(f"/proc/{started}").exists() or "Z" in Path(f"/proc/{started}/stat").read_text(), 10)


def test_of_a_search_that_is_over_there_is_nothing_to_collect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished_run(tmp_path)
    assert run(["dashboard", path.name, "--storage-path", str(tmp_path), "--metrics"]) == 0
    told = capsys.readouterr().out
    assert "prometheus   no (only while the search runs)" in told and "grafana      no (only while" in told
