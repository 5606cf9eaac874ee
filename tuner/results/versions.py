"""Reads the versions of the libraries that a search runs on from package metadata; nothing is imported."""

from __future__ import annotations

import platform
from importlib import metadata

import tuner

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "ray", "optuna")


def versions() -> dict[str, str]:
    """Version by package, Python and tuner first; a package that is not installed says so."""
    found = {"tuner": tuner.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
