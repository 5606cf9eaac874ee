"""The nodes of a cluster: before the first trial, what they offer and whether each can work; later, whether any is
alive."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.addresses import joins
from tuner.answers import Answer, No, Unknown, Yes
from tuner.config.paths import storage_uri
from tuner.contract import PROGRAMS, InputError
from tuner.error_text import last_line
from tuner.failures import Failure, capture
from tuner.results.storage import try_uri
from tuner.results.versions import versions

ANSWERS_WITHIN_S = 90
"""Seconds for a node to answer. It starts a worker process for that, which has taken 30 s on a cold network disk."""
_TYPE = "accelerator_type:"
LOOK_EVERY_S = 5.0
"""Seconds between two looks at whether a node is alive."""
LOOKS = 2
"""How many looks in a row find no node alive before the user is told."""


def offered(accelerator_type: str | None = None, *, may_grow: bool = False) -> Mapping[str, float]:
    """The resources that the cluster has for trials, or may grow to where an autoscaler tells Ray about its groups of
    nodes; open-source ones do not.

    accelerator_type: count only nodes with such a GPU; None for all. may_grow: the user knows of an autoscaler, so a
    type that no node has yet may come. Raises InputError for a type that no node has or may get.
    """
    import ray

    now = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    try:
        later, unknown = list(_groups()), ""
    except Exception as error:  # Ray's own, and gRPC's
        later, unknown = [], last_line(error)
    wanted = _TYPE + (accelerator_type or "")
    if accelerator_type is not None:
        types = sorted({name for node in [*now, *later] for name in node if name.startswith(_TYPE)})
        now, later = [n for n in now if n.get(wanted)], [n for n in later if n.get(wanted)]
        if not now and not later and not may_grow:
            has = ", ".join(name.removeprefix(_TYPE) for name in types)
            raise InputError(
                f"no node has or may get a {accelerator_type}"
                + (f"; what an autoscaler may add could not be found out ({unknown})" if unknown else ""),
                where="resources.accelerator_type",
                expected=f"one of: {has}" if has else "null: this cluster's nodes name no GPU types",
                remedy="where an autoscaler adds such nodes, set resources.scale_to",
            )
    have, may = _sum(now), _sum(later)
    return {name: max(have.get(name, 0.0), may.get(name, 0.0)) for name in {*have, *may}}


def require_nodes(folder: Path, program: str) -> list[str]:
    """Has every node, where there are several, import the program, and write to the storage and read from it.

    Returns sentences about what differs between nodes. Raises InputError that names each node that cannot work.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return []
    check = secrets.token_hex(8)
    mine = folder / ".check"
    if storage_uri(folder) is None:
        mine.write_text(check)
    task = ray.remote(num_cpus=0, max_retries=0)(_check_node)
    asked = {
        node["NodeID"]: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(folder), check, node["NodeID"], PROGRAMS.get(program, program).partition(":")[0])
        for node in nodes
    }
    here, notes, broken = versions(), [], []
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    for node in nodes:
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        try:
            found = ray.get(asked[node["NodeID"]], timeout=max(1.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            notes.append(f"node {name} did not answer within {ANSWERS_WITHIN_S} s: trials may be lost there")
            continue
        except Exception as error:  # whatever goes wrong in the node's own environment
            broken.append(f"{name}: {last_line(error)}")
            continue
        if found["trouble"]:
            broken.append(f"{name}: {found['trouble']}")
        elif storage_uri(folder) is None and not _take(folder, node["NodeID"]):
            broken.append(f"{name}: what it writes to {folder} is not seen here")
        differs = [f"{key} {value}, here {here[key]}" for key, value in found["versions"].items() if value != here[key]]
        notes += [f"node {name} has {'; '.join(differs)}"] if differs else []
    mine.unlink(missing_ok=True)
    if broken:
        raise InputError(
            "\n  ".join([f"{len(broken)} of {len(nodes)} nodes cannot work:", *broken]),
            expected="nodes with the same packages, that see one storage path",
            remedy="--storage-path on a file system that all nodes mount, or a URI (s3://bucket/runs); "
            "`tuner submit` sends the packages along; `tuner doctor --address` looks closer",
        )
    return notes


def _check_node(folder: str, check: str, node: str, module: str) -> dict[str, Any]:
    """Runs on a node: returns its versions, and what keeps it from working ("" for nothing).

    check: the text of the driver's file in the run folder, which the node must see.
    """
    trouble = ""
    uri = storage_uri(Path(folder))
    imported = capture(lambda: importlib.import_module(module))
    if isinstance(imported, Failure):
        return {"trouble": f"{module} cannot be imported: {imported.verdict.message}", "versions": versions()}
    try:
        if uri is not None:
            try_uri(uri)
        elif Path(folder, ".check").read_text() != check:
            trouble = f"{folder} is another folder there"
        else:
            Path(folder, f".check-{node}").write_text(check)
    except FileNotFoundError:
        trouble = f"{folder} is not seen there"
    except OSError as error:
        trouble = f"{folder}: {error.strerror}"
    except InputError as error:
        trouble = error.what
    return {"trouble": trouble, "versions": versions()}


def _take(folder: Path, node: str) -> bool:
    """Whether the file that a node wrote is seen here; removes it. NFS may show it up to 2 s late."""
    file = folder / f".check-{node}"
    for _ in range(20):
        os.listdir(folder)  # noqa: PTH208  refreshes what an NFS client remembers of the folder
        if file.is_file():
            file.unlink()
            return True
        time.sleep(0.1)
    return False


def _groups() -> Iterator[dict[str, float]]:
    """The resources of each group of nodes that an autoscaler may add, with all its nodes; nothing without an
    autoscaler."""
    from ray._private.state import state

    config = state.get_cluster_config()
    for group in config.node_group_configs if config else ():
        count = group.max_count if group.max_count >= 0 else 1000
        yield {name: float(amount * count) for name, amount in group.resources.items()}


def _sum(nodes: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _any_alive(ray: Any) -> Answer:
    """Whether any node of the cluster is alive."""
    try:
        return Yes() if any(node["Alive"] for node in ray.nodes()) else No()
    except Exception as error:  # its own errors, gRPC's, and those of its C++ side
        return Unknown(last_line(error))


class RayGone(Exception):
    """The Ray that a search had started died while the search ran."""


class Nodes:
    """Checks that a node is left to run trials on. Ray itself would wait for one without end.

    lost: called once with a RayGone where the search started Ray itself, because then nobody adds a node. note: called
    with a sentence on a cluster that was joined.
    """

    def __init__(self, address: str | None, lost: Callable[[Exception], None], note: Callable[[str], None]) -> None:
        self._joined, self._lost, self._note = joins(address), lost, note
        self._without = 0

    def turn(self) -> None:
        """Looks; called from the driver's loop, every `LOOK_EVERY_S` seconds."""
        import ray

        match _any_alive(ray):
            case Yes():
                self._without = 0
                return
            case Unknown(why):  # Ray's head is away or busy, which does not mean that no node is alive
                logging.getLogger(__name__).warning("it could not be found out which nodes are alive: %s", why)
                return
        self._without += 1
        if self._without != LOOKS:
            return
        if self._joined:
            self._note("no node of the cluster is alive: trials wait until there is one, or until you press Ctrl-C")
        else:
            self._lost(RayGone("Ray's own process on this machine (raylet) has died: no trial can go on"))
