"""Writes a search as a RayJob manifest for the KubeRay operator (`ray.io/v1`).

The image holds tuner; the search file and the small files that it names are in a ConfigMap in the same document. The
head has no GPU and runs no trial. The job resumes by itself: the operator starts it again when it fails
(`backoffLimit`), and `search --or-resume` finds the run folder in the shared storage.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

import yaml

from tuner.cluster.parcel import Parcel
from tuner.cluster.payload import job_metadata
from tuner.contract import InputError

PLACE = PurePosixPath("/etc/tuner/search")
"""Where the parcel is mounted, on every node."""
LARGEST_BYTES = 700_000
"""The most bytes of files in the ConfigMap: it holds 1 MiB, and base64 text is a third longer than its bytes."""
RETRIES = 3
"""How often the operator starts a failed job again."""
KEPT_S = 600
"""Seconds for which a job that has ended can be looked at; its cluster is gone by then."""


@dataclass(frozen=True)
class Site:
    """The Ray cluster that the manifest asks for."""

    image: str
    """The pods' image, with Ray and tuner."""
    nodes: int = 1
    """Worker pods, at most."""
    least: int | None = None
    """Worker pods, at least; below `nodes` the autoscaler adds and removes them. None: `nodes`."""
    gpus: int = 1
    """GPUs of a worker pod."""
    cpus: int = 8
    """CPU cores of a worker pod."""
    memory: str = "32Gi"
    """Memory of a worker pod, as Kubernetes writes it."""
    hours: float = 24.0
    """The job is ended after this time."""
    volume: str | None = None
    """`CLAIM:/path`: a persistent volume claim, and where every pod mounts it."""
    secret: str | None = None
    """A Secret whose keys become environment variables (HF_TOKEN, AWS_ACCESS_KEY_ID)."""


def manifest(name: str, storage_path: str, program: str, arguments: Sequence[str], parcel: Parcel, site: Site) -> str:
    """The manifest of the search `name`. program: as `run.program` names it. arguments: of `tuner search`, in the
    parcel's folder.

    Raises InputError if the runs would not be on storage that outlives the pods, or if the parcel is too large.
    """
    if not storage_path.startswith("/") or site.volume:
        _require_mounted(storage_path, site)
    else:
        raise InputError(
            f"{storage_path} is a folder of the pods, and gone with them",
            where="run.storage_path",
            expected="a folder on a volume that every node mounts, or a URI",
            remedy="--volume CLAIM:/shared --storage-path /shared/runs",
        )
    metadata_of_job = job_metadata(name, storage_path, program)
    documents = [_config_map(_label(name), parcel), _ray_job(_label(name), metadata_of_job, arguments, parcel, site)]
    head = f"# The search {name} on Kubernetes: kubectl apply -f this file. The KubeRay operator runs it.\n"
    return head + yaml.dump_all(documents, Dumper=_Blocks, sort_keys=False, width=1000)


class _Blocks(yaml.SafeDumper):
    """Writes text of several lines as a block that people can read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _text)


def _ray_job(
    label: str, about: Mapping[str, str], arguments: Sequence[str], parcel: Parcel, site: Site
) -> dict[str, Any]:
    """The RayJob. about: the Ray job's metadata."""
    # `env -C` and not `cd &&`: the operator splits the entry point into words, without a shell.
    entrypoint = ["env", "-C", str(PLACE), "python", "-m", "tuner", "search", *arguments]
    least = site.nodes if site.least is None else site.least
    worker = _template(label, parcel, site, cpus=site.cpus, memory=site.memory, gpus=site.gpus)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": label,
            "labels": {"app.kubernetes.io/name": "tuner"},
            "annotations": {"tuner/search": about["tuner_search"]},
        },
        "spec": {
            "entrypoint": shlex.join([*entrypoint, "--or-resume", "--events-beside-log"]),
            "metadata": dict(about),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "activeDeadlineSeconds": round(site.hours * 3600),
            "backoffLimit": RETRIES,
            "rayClusterSpec": {
                "rayVersion": metadata.version("ray"),
                "authOptions": {"mode": "token"},
                **({"enableInTreeAutoscaling": True} if least < site.nodes else {}),
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104  the operator comes from outside; a token is asked for
                    "template": _template(label, parcel, site, cpus=4, memory="16Gi", gpus=0),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "gpu" if site.gpus else "cpu",
                        "replicas": least,
                        "minReplicas": least,
                        "maxReplicas": site.nodes,
                        "rayStartParams": {},
                        "template": worker,
                    }
                ],
            },
        },
    }


def _template(label: str, parcel: Parcel, site: Site, *, cpus: int, memory: str, gpus: int) -> dict[str, Any]:
    """A pod: the image, the search's files, the shared volume."""
    amounts = {"cpu": str(cpus), "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    mounts = [{"name": "search", "mountPath": str(PLACE), "readOnly": True}]
    items = [{"key": _key(place), "path": str(place)} for place, _ in parcel.files()]
    volumes: list[dict[str, Any]] = [{"name": "search", "configMap": {"name": label, "items": items}}]
    if site.volume:
        claim, _, path = site.volume.partition(":")
        mounts.append({"name": "shared", "mountPath": path})
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
    container: dict[str, Any] = {
        "name": "ray",
        "image": site.image,
        "env": [{"name": "PYTHONPATH", "value": str(PLACE)}],
        **({"envFrom": [{"secretRef": {"name": site.secret}}]} if site.secret else {}),
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": mounts,
    }
    return {"spec": {"containers": [container], "volumes": volumes}}


def _config_map(label: str, parcel: Parcel) -> dict[str, Any]:
    """The parcel as a ConfigMap. Raises InputError for more than LARGEST_BYTES."""
    held: dict[str, dict[str, str]] = {"data": {}, "binaryData": {}}
    total = 0
    for place, source in parcel.files():
        content = source.read_bytes()
        total += len(content)
        try:
            held["data"][_key(place)] = content.decode("utf-8")
        except UnicodeDecodeError:
            held["binaryData"][_key(place)] = base64.b64encode(content).decode("ascii")
    if total > LARGEST_BYTES:
        raise InputError(
            f"{total / 1000:,.0f} kB would travel in the manifest",
            where=max(parcel.files(), key=lambda pair: pair[1].stat().st_size)[1].as_posix(),
            expected=f"at most {LARGEST_BYTES / 1000:.0f} kB: the search file and small files",
            remedy="put the data on the shared volume and name it by its absolute path there, or by its hub id",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": label},
        **{kind: files for kind, files in held.items() if files},
    }


def _require_mounted(storage_path: str, site: Site) -> None:
    """Raises InputError if `--volume` is malformed, or if the runs would not lie on it."""
    if not site.volume:
        return
    claim, _, path = site.volume.partition(":")
    if not claim or not path.startswith("/"):
        raise InputError(
            f"{site.volume!r} is no volume", where="--volume", expected="CLAIM:/path, as in shared:/shared"
        )
    if storage_path.startswith("/") and not PurePosixPath(storage_path).is_relative_to(path):
        raise InputError(
            f"{storage_path} does not lie on the volume", where="run.storage_path", expected=f"a folder below {path}"
        )


def _key(place: PurePosixPath) -> str:
    """A file's key in the ConfigMap, where a slash is not allowed."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(place).replace("/", "__"))


def _label(name: str) -> str:
    """A run's name as Kubernetes allows names: lower-case letters, digits and dashes, at most 40, so that the names of
    its pods are not too long."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "search"


def site_from(image: str | None, options: Mapping[str, Any]) -> Site:
    """The site from the options of a command line, None where one was not given. Raises InputError without an image."""
    if not image:
        raise InputError(
            "no image for the pods",
            where="--image",
            expected="a container image with Ray, this version of tuner and its requirements",
        )
    return Site(image=image, **{key: value for key, value in options.items() if value is not None})
