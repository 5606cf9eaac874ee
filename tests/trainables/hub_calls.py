"""Calls the SFT program in processes of their own, each as on a machine with a hub's address and a cache."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

CALL = """
import json, sys
from trainables.sft import SFT
from tuner.contract import InputError, Preparation
method, settings, *more = json.loads(sys.argv[1])
try:
    if method == "work":
        SFT(settings, Preparation(**more[0]))
    print(json.dumps("a worker" if method == "work" else getattr(SFT, method)(settings, *more), default=vars))
except InputError as error:
    print(error)
"""


def settings_for(**model: Any) -> dict[str, Any]:
    data = model.pop("data", {})
    return {
        "model": {"model_name_or_path": "org/base", **model},
        "data": {"train": "org/rows", "max_length": 64, **data},
    }


def pinned(settings: dict[str, Any], commits: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(settings))
    for name, commit in commits.items():
        section, key = name.split(".")
        made[section][key] = commit
    return made


def obey_permissions() -> None:
    """Drops from this process the rights by which root ignores permissions of files."""
    for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; a plain user has none of them


def start(url: str, home: Path, *call: Any, plain: bool = False, **env: str) -> subprocess.Popen[str]:
    """Starts a call of the program in a process of its own, with the cache in `home`. plain: permissions of files hold
    for it, even if root starts it."""
    return subprocess.Popen(
        [sys.executable, "-c", CALL, json.dumps(call, default=asdict)],
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **env},
        preexec_fn=obey_permissions if plain else None,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    return output
