"""Is the hub there? Asked once and quickly: the libraries beneath would retry for 45 s before they gave up."""

from __future__ import annotations

import os
import re
import socket
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WAIT_S = 3.0


def is_hub_id(name: str) -> bool:
    """Whether `name` reads as `org/name` (or a legacy bare name) and is not a path that exists."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


@cache
def reachable() -> bool:
    """Whether the hub answers. Behind a proxy, or in offline mode, nothing is asked."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=_WAIT_S).close()
    except OSError:
        return False
    return True


def offline_if_unreachable(*names: str) -> bool:
    """Where one of `names` is a hub id and the hub does not answer: the cache alone is used, without retries."""
    if not any(is_hub_id(name) for name in names) or reachable():
        return False
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it read the environment when it was imported
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = True
    return True


def cached(name: str, file: str, revision: str | None = None) -> bool:
    """Whether a file of a hub repository is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)
