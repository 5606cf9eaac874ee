"""Finds out whether a search could run: examines this machine, a cluster and its nodes, the storage, the hub."""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tuner.addresses import go_past_proxies
from tuner.answers import Answer, No, Unknown, Yes
from tuner.cluster import probe as probing
from tuner.cluster.findings import HERE, Finding, Level, judge
from tuner.contract import InputError
from tuner.error_text import last_line
from tuner.results.command_line import ray_command_line
from tuner.surroundings import ray_token_file

NODE_S = 180
"""Seconds in which all nodes have to answer; on each a worker has to start, and then torch."""


def examine_machine(storage_path: str) -> Iterator[Finding]:
    """Examines this machine alone. storage_path: folder or URI of the runs."""
    facts = probing.probe(storage_path)
    yield from judge(HERE, facts, requirements())
    yield from _token(bool(facts["listening"]))
    yield _storage(storage_path)
    yield _hub()


def examine_cluster(storage_path: str, dashboard: str | None) -> Iterator[Finding]:
    """Examines every node of the cluster that this process has joined, and compares it with this machine, the driver's.

    dashboard: its URL; None if the cluster has none. Each node writes a file into the storage, which the driver has to
    find there.
    """
    import ray

    driver = probing.probe(storage_path)
    yield from judge("driver", driver, requirements())
    alive = [node for node in ray.nodes() if node["Alive"]]
    yield _auth(dashboard)
    check = secrets.token_hex(4)
    asked = {node["NodeID"]: _ask(ray, node["NodeID"], storage_path, check) for node in alive}
    deadline = time.monotonic() + NODE_S
    for node in alive:
        where = f"node {node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        try:
            facts, wrote = ray.get(asked[node["NodeID"]], timeout=max(1.0, deadline - time.monotonic()))
        except Exception as error:
            text = f"does not answer: {last_line(error, 200)}"
            yield Finding(where, "node", Level.RED, text, f"look at it: {ray_command_line('status')}")
            continue
        yield from judge(where, facts, requirements(), driver)
        if "://" not in storage_path:
            yield _shared(where, storage_path, wrote, check)
    yield _storage(storage_path, "driver")
    yield _hub("driver")


def requirements() -> list[str]:
    """The libraries that tuner needs, from its metadata; empty if it was sent with a job, which has no metadata."""
    try:
        return [text for text in metadata.requires("tuner") or [] if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        return []


def _ask(ray: Any, node: str, storage_path: str, check: str) -> Any:
    """Starts a task that probes a node and writes into the storage. Its code is sent by value: the node may not have
    this package."""
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(probing)
    try:
        task = ray.remote(_on_node(probing.probe))
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        return task.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(storage_path, check, node)
    finally:
        cloudpickle.unregister_pickle_by_value(probing)


def _on_node(probe: Any) -> Any:
    """The function that runs on a node. It returns the facts, and why the storage cannot be written ("" if it can)."""

    def examine(storage_path: str, check: str, node: str) -> tuple[dict[str, Any], str]:
        from pathlib import Path

        wrote = ""
        if "://" not in storage_path:
            try:
                folder = Path(storage_path)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".tuner-{check}-{node[:8]}").write_text(check)
            except OSError as error:
                wrote = error.strerror or str(error)
        return probe(storage_path), wrote

    # cloudpickle sends a function of `__main__` by value; this module may be missing on the node.
    examine.__module__ = "__main__"
    return examine


def _shared(where: str, storage_path: str, wrote: str, check: str) -> Finding:
    """Judges whether the driver sees the file that a node wrote. wrote: why it could not write ("" if it could)."""
    if wrote:
        return Finding(where, "storage", Level.RED, f"cannot write to {storage_path} ({wrote})", "mount it there")
    mine = [path for path in Path(storage_path).glob(f".tuner-{check}-*") if path.name.endswith(where[-9:-1])]
    for path in mine:
        path.unlink(missing_ok=True)
    if not mine:
        text = f"what it writes to {storage_path} is not seen by the driver"
        return Finding(where, "storage", Level.RED, text, "a folder that all nodes mount, or a URI (s3://bucket/runs)")
    return Finding(where, "storage", Level.GREEN, f"{storage_path} is the driver's")


def _storage(storage_path: str, where: str = HERE) -> Finding:
    """Judges the storage: writes a file into it and reads it back."""
    if "://" in storage_path:
        from tuner.results.storage import try_uri

        try:
            try_uri(storage_path)
        except InputError as error:
            return Finding(where, "storage", Level.RED, error.what, error.remedy)
        return Finding(where, "storage", Level.GREEN, f"{storage_path} can be written and read")
    folder = Path(storage_path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    file = folder / f".tuner-{secrets.token_hex(4)}"
    try:
        file.write_text("x", encoding="utf-8")
        file.read_text(encoding="utf-8")
        file.unlink()
    except OSError as error:
        text = f"{storage_path} cannot be written ({error.strerror})"
        return Finding(where, "storage", Level.RED, text, "another --storage-path")
    return Finding(where, "storage", Level.GREEN, f"{storage_path} can be written and read")


def _token(listens: bool) -> Iterator[Finding]:
    """Judges this machine's token. listens: whether a Ray that runs here can be reached from other machines."""
    path = ray_token_file()
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode == "disabled":
        text = "RAY_AUTH_MODE=disabled: whoever reaches a Ray that is started here runs code"
        yield Finding(HERE, "ray token", Level.AMBER, text, "unset RAY_AUTH_MODE")
    elif os.environ.get("RAY_AUTH_TOKEN"):
        yield Finding(HERE, "ray token", Level.GREEN, "in RAY_AUTH_TOKEN")
    elif path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        text = f"{path} can be read by others: whoever has it runs code on the cluster"
        yield Finding(HERE, "ray token", Level.AMBER, text, f"chmod 600 {path}")
    elif path.is_file():
        yield Finding(HERE, "ray token", Level.GREEN, str(path))
    else:
        level = Level.AMBER if listens else Level.GREEN
        text = "none yet; a search on this machine makes one"
        yield Finding(
            HERE, "ray token", level, text, ray_command_line("get-auth-token", "--generate") if listens else ""
        )


def _auth(dashboard: str | None) -> Finding:
    """Judges whether the cluster refuses requests without a token. It is asked: this machine's settings say nothing
    about the cluster's."""
    if dashboard is None:
        text = "without a dashboard it is not known whether the cluster asks for a token"
        return Finding("driver", "ray token", Level.AMBER, text, "start it with RAY_AUTH_MODE=token")
    match _asks(dashboard):
        case Yes():
            return Finding("driver", "ray token", Level.GREEN, "the cluster asks for a token")
        case No():
            text = "the cluster asks for no token: whoever reaches its ports runs code on it"
            remedy = "start it with RAY_AUTH_MODE=token and a token on all nodes"
            return Finding("driver", "ray token", Level.RED, text, remedy)
        case Unknown(why):
            text = f"it could not be found out whether the cluster asks for a token: {why}"
            return Finding("driver", "ray token", Level.AMBER, text, "look at the head node")


def _asks(dashboard: str) -> Answer:
    """Whether a dashboard refuses a request without a token."""
    go_past_proxies(urlsplit(dashboard).hostname or "")
    try:
        with urlopen(f"{dashboard}/api/version", timeout=5) as answer:  # noqa: S310  the address is Ray's own
            return No() if "ray_version" in json.load(answer) else Unknown(f"{dashboard} is no Ray dashboard")
    except HTTPError as error:
        return Yes() if error.code in (401, 403) else Unknown(f"{dashboard} answers HTTP {error.code}")
    except (OSError, ValueError, HTTPException) as error:
        return Unknown(f"{dashboard} does not answer ({getattr(error, 'reason', error)})")


def _hub(where: str = HERE) -> Finding:
    """Judges whether models and data can be fetched by hub id."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding(where, "hub", Level.GREEN, "HF_HUB_OFFLINE: only what is cached, and folders")
    endpoint = (os.environ.get("HF_ENDPOINT", "").strip() or "https://huggingface.co").rstrip("/")
    remedy = "only folders and what is cached can be used; set HF_HUB_OFFLINE=1 to say so"
    if not endpoint.startswith(("http://", "https://")):
        return Finding(where, "hub", Level.RED, f"HF_ENDPOINT is no address: {endpoint}", "https://...")
    token = os.environ.get("HF_TOKEN")
    path = "/api/whoami-v2" if token else "/api/models?limit=1"
    request = Request(endpoint + path, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urlopen(request, timeout=5):  # noqa: S310
            pass
    except HTTPError as error:
        if error.code in (401, 403) and token:
            return Finding(where, "hub", Level.RED, f"{endpoint} does not accept HF_TOKEN", "a token that is valid")
        return Finding(where, "hub", Level.AMBER, f"{endpoint} answers HTTP {error.code}", remedy)
    except (OSError, ValueError, HTTPException) as error:  # something else than a hub may answer
        reason = str(getattr(error, "reason", error))
        return Finding(where, "hub", Level.AMBER, f"{endpoint} does not answer ({reason[:100]})", remedy)
    return Finding(where, "hub", Level.GREEN, f"{endpoint} answers{', and knows the token' if token else ''}")
