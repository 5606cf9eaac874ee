"""Runs Prometheus and Grafana on the gauges of a running search, for `tuner dashboard --metrics`.

Both are programs of this machine, where they are installed. They listen on the loopback, keep what they collect in a
temporary folder, and end with the command. Grafana shows the dashboard `grafana.json`, without a login.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, build_opener

import yaml

from tuner.contract import InputError
from tuner.watch.boards import LOOPBACK

HERE = Path(__file__).parent
STARTS_WITHIN_S = 60.0
"""Seconds for one of the programs to answer; Grafana makes its database first."""
ENDS_WITHIN_S = 10.0
"""Seconds for one of the programs to end after SIGTERM."""
GRAFANA_HOMES = ("/usr/share/grafana", "/usr/local/share/grafana", "/opt/homebrew/opt/grafana/share/grafana")
"""Where packages of Grafana put its pages; one that was unpacked has them beside its `bin`."""
INSTALL = {
    "prometheus": "https://prometheus.io/download, or the package prometheus",
    "grafana": "https://grafana.com/grafana/download",
}
"""Where each program comes from."""


def program(name: str) -> str | None:
    """The path of a program on this machine; None where it is not installed."""
    return shutil.which(name) or (shutil.which("grafana-server") if name == "grafana" else None)


@contextmanager
def prometheus(page: str, token: str | None) -> Iterator[str]:
    """Runs Prometheus, which collects the gauges of the nodes of a cluster, and yields its address. page: any page of
    the cluster's Ray dashboard. Raises InputError if it does not start."""
    parts = urlsplit(page)
    settings = yaml.safe_load((HERE / "prometheus.yml").read_text("utf-8"))
    discovery = settings["scrape_configs"][0]["http_sd_configs"][0]
    discovery["url"] = f"{parts.scheme}://{parts.netloc}/api/prometheus/sd"
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:  # nobody else reads it: mode 0700
        folder = Path(place)
        if token:
            discovery["authorization"]["credentials_file"] = str(folder / "token")
            (folder / "token").write_text(token, "utf-8")
        else:
            del discovery["authorization"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), "utf-8")
        port = _free(9090)
        command = [
            program("prometheus") or "prometheus", f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={LOOPBACK}:{port}",
        ]  # fmt: skip
        with _running("prometheus", command, f"http://{LOOPBACK}:{port}/-/ready", folder):
            yield f"http://{LOOPBACK}:{port}"


@contextmanager
def grafana(source: str, search: str) -> Iterator[str]:
    """Runs Grafana with the dashboard of a search, and yields the dashboard's address. source: the address of
    Prometheus. Raises InputError if it does not start."""
    found = Path(program("grafana") or "grafana").resolve()
    homes = (found.parents[1], *map(Path, GRAFANA_HOMES))
    home = next((home for home in homes if (home / "public").is_dir()), homes[0])
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        folder = Path(place)
        for part in ("datasources", "dashboards", "plugins", "alerting"):
            (folder / "provisioning" / part).mkdir(parents=True)
        data = {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy", "url": source}
        _write(folder / "provisioning/datasources/tuner.yaml", {"datasources": [{**data, "isDefault": True}]})
        shutil.copy(HERE / "grafana.json", folder / "grafana.json")
        provider = {"name": "tuner", "type": "file", "options": {"path": str(folder)}}
        _write(folder / "provisioning/dashboards/tuner.yaml", {"providers": [provider]})
        port = _free(3000)
        settings = {
            "GF_PATHS_DATA": folder / "data", "GF_PATHS_LOGS": folder / "logs", "GF_PATHS_PLUGINS": folder / "plugins",
            "GF_PATHS_PROVISIONING": folder / "provisioning", "GF_SERVER_HTTP_ADDR": LOOPBACK,
            "GF_SERVER_HTTP_PORT": port, "GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false", "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        }  # fmt: skip
        command = [str(found), *(["server"] if found.name == "grafana" else []), "--homepath", str(home)]
        ready = f"http://{LOOPBACK}:{port}/api/health"
        with _running("grafana", command, ready, folder, {name: str(value) for name, value in settings.items()}):
            yield f"http://{LOOPBACK}:{port}/d/tuner?var-search={quote(search)}"


def _write(file: Path, value: Mapping[str, object]) -> None:
    file.write_text(yaml.safe_dump({"apiVersion": 1, **value}), "utf-8")


@contextmanager
def _running(
    name: str, command: Sequence[str], ready: str, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Runs a program while this is entered. ready: an address at which it answers once it has started."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _ended_with_us(command), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(settings or {})}, cwd=folder, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
                told = "\n  ".join(["what it said last:", *said])
                raise InputError(f"{name} does not start", where=command[0], expected=told)
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
        process.kill()
        process.wait()


def _ended_with_us(command: Sequence[str]) -> list[str]:
    """The command, which ends with this process however that ends; as it is where the system has no `setpriv`."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), *command]


def _answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _free(wanted: int) -> int:
    """The port, if nothing listens there; else a free one."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            tried.bind((LOOPBACK, wanted))
            return wanted
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])
