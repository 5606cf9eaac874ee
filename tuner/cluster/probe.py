"""Finds out what one machine has. It runs on the driver and, sent by value, on every node of a cluster.

It imports the standard library only, because it has to work where tuner's packages or torch are missing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("tuner", "trainables", "search_spaces")
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "ray", "optuna")
TORCH_S = 120
"""Seconds in which torch has to start and to quantize; 10 to 15 s are usual, more from a cold network disk."""

# It runs in a process of its own: the driver never imports torch, and a broken CUDA library may crash the process.
_TORCH = """
import json, torch
told = {"cuda": torch.version.cuda, "available": torch.cuda.is_available(), "devices": []}
if told["available"]:
    for index in range(torch.cuda.device_count()):
        told["devices"].append(torch.cuda.get_device_name(index))
try:
    import bitsandbytes
    device = "cuda" if told["available"] else "cpu"
    weights, state = bitsandbytes.functional.quantize_4bit(torch.randn(64, 64, device=device), quant_type="nf4")
    bitsandbytes.functional.dequantize_4bit(weights, state)
    told["nf4"] = device
except Exception as error:
    told["nf4_error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
print(json.dumps(told))
"""


def probe(storage_path: str | None = None, torch: bool = True) -> dict[str, Any]:
    """The facts about this machine, by name, as JSON has them.

    storage_path: the folder of the runs, whose free space is looked up. torch: whether to start torch and try NF4.
    The fact `unknown` says, by fact, what could not be found out and why; such a fact is empty and means nothing.
    """
    gpus, gpus_unknown = _gpus()
    listening, listening_unknown = _listening()
    unknown = {"gpus": gpus_unknown, "listening": listening_unknown}
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "packages": {name: _package(name) for name in PACKAGES},
        "gpus": gpus,
        "torch": _torch() if torch else None,
        "listening": listening,
        "unknown": {name: why for name, why in unknown.items() if why},
        "free": {place: _free(place) for place in (tempfile.gettempdir(), "/dev/shm", *_folders(storage_path))},  # noqa: S108
        "auth_mode": os.environ.get("RAY_AUTH_MODE"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str) -> dict[str, str] | None:
    """Where a package is imported from, its version if it says one, and a digest of its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    digest = hashlib.sha256()
    for file in sorted(file for kind in ("*.py", "*.yaml") for file in folder.rglob(kind)):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    try:
        version = str(getattr(importlib.import_module(name), "__version__", ""))
    except Exception as error:
        version = f"{type(error).__name__}: {error}"[:200]
    return {"origin": str(folder), "version": version, "digest": digest.hexdigest()[:12]}


def _gpus() -> tuple[list[dict[str, str]], str]:
    """Name, driver version and memory of each GPU, from nvidia-smi; and why it could not be asked ("" if it could)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        loaded = Path("/proc/driver/nvidia/version").exists()
        return [], "a driver is loaded, and nvidia-smi is not on the PATH" if loaded else ""
    asked = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines() or [""]
        return [], f"nvidia-smi ended with code {error.returncode}: {said[0][:200]}"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [], f"nvidia-smi: {error}"[:200]
    rows = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.count(",") == 2]
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows], ""


def gpu_bytes() -> int | None:
    """Bytes of the GPU of this machine that has least; None without one, or where nvidia-smi cannot be asked."""
    told = [gpu["memory"].split() for gpu in _gpus()[0]]
    sizes = [int(words[0]) * 2**20 for words in told if len(words) == 2 and words[0].isdigit() and words[1] == "MiB"]
    return min(sizes, default=None)


def _torch() -> dict[str, Any]:
    """What torch and bitsandbytes say, as `_TORCH` prints it, or an `error`."""
    # Ray sets CUDA_VISIBLE_DEVICES to "" for a task that asks for no GPU, such as the one that probes a node.
    environment = {key: value for key, value in os.environ.items() if (key, value) != ("CUDA_VISIBLE_DEVICES", "")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH],
            capture_output=True,
            text=True,
            timeout=TORCH_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not start within {TORCH_S} s"}
    try:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:300]}
    return told


def _listening() -> tuple[list[dict[str, Any]], str]:
    """Program and port of Ray's sockets that take connections from other machines, from /proc; and why not all of them
    could be looked at ("" if all could)."""
    sockets: dict[str, int] = {}  # ports by inode
    closed: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError as error:
            if table == "/proc/net/tcp":  # the other one is missing where IPv6 is off
                closed.append(f"{table}: {error.strerror}")
            continue
        for fields in (line.split() for line in lines):
            host, port = fields[1].split(":")
            if fields[3] == "0A" and not _is_loopback(host):  # 0A: listening
                sockets[fields[9]] = int(port, 16)
    found = {(name, sockets[inode]) for name, inode in _ray_sockets(closed) if inode in sockets}
    return [{"program": name, "port": port} for name, port in sorted(found)], "; ".join(closed[:2])


def _is_loopback(host: str) -> bool:
    """Whether an address from /proc/net is a loopback one. host: hexadecimal; each 32-bit word has its bytes in reverse
    order."""
    return host.endswith("7F") if len(host) == 8 else host in ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")


def _ray_sockets(closed: list[str]) -> list[tuple[str, str]]:
    """(program, inode) of the sockets of Ray's processes. A process that cannot be looked into is appended to `closed`,
    in words."""
    found: list[tuple[str, str]] = []
    for process in Path("/proc").glob("[0-9]*"):
        name = ""
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            name = next((n for n in ("gcs_server", "raylet", "dashboard.py", "ray.util.client") if n in words[0]), "")
            name = name or next((n for n in ("dashboard.py", "client.server") if any(n in w for w in words[:4])), "")
            if not name:
                continue
            for link in (process / "fd").iterdir():
                target = os.readlink(link)  # noqa: PTH115  a socket's link is no path
                if target.startswith("socket:["):
                    found.append((name.removesuffix(".py"), target[8:-1]))
        except PermissionError:
            if name:
                closed.append(f"{name} runs as another user (process {process.name})")
        except OSError:
            continue
    return found


def _folders(storage_path: str | None) -> list[str]:
    return [storage_path] if storage_path and "://" not in storage_path else []


def _free(place: str) -> int | None:
    """Free bytes on the disk of a folder, or of the nearest existing one above it; None if they cannot be found out."""
    path = Path(place).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
