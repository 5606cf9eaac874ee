"""The hub: commits of what a search names, and files downloaded into this machine's cache.

A branch may move during a search, so every hub id is resolved to a commit once, before anything else, and that commit
is prepared, trained on, resumed and merged with. Files are downloaded once a machine, by the first process that needs
them. A commit that is cached is read from the cache: without a question to the hub, and without a lock.
"""

from __future__ import annotations

import fcntl
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainables.hub import local_cache, refusals
from trainables.hub.refusals import endpoint, input_errors
from trainables.hub.sources import LEFT_OUT, HubSource, wanted

_CONNECTS_WITHIN_S = 3.0
_ANSWERS_WITHIN_S = 10.0
"""Seconds after which a request counts as unanswered; the hub's library by itself has no limit."""


def commit(source: HubSource) -> str:
    """The commit of a source's revision now; without a hub, the one that the cache has. Raises InputError."""
    why = why_unreachable()
    with input_errors(source):
        if why:
            held = local_cache.cached_commit(source)
            if held is None:
                raise refusals.out_of_reach(source, why)
            return held
        from huggingface_hub import HfApi

        _set_timeouts()
        return str(HfApi().resolve_revision(source.name, repo_type=source.kind, revision=source.revision).resolved)


def fetch(source: HubSource) -> Path:
    """The folder of a base or a tokenizer in this machine's cache. Missing files are downloaded, by one process at a
    time; for a commit that is cached, there is no request and no lock. Raises InputError."""
    with input_errors(source):
        held = local_cache.look(source)
        if held is not None and held.is_complete and held.is_listed and source.is_pinned:
            return held.folder
        if why := why_unreachable():
            if held is not None and held.is_complete:
                return held.folder
            raise refusals.out_of_reach(source, why, held.missing if held else ())
        with _one_at_a_time(source):
            return _download(source)


def _download(source: HubSource) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    held = local_cache.look(source)
    if held is not None and held.is_complete and held.is_listed and source.is_pinned:
        return held.folder  # downloaded by the process that this one has waited for
    for file in (held.folder / name for name in held.missing) if held is not None and held.is_listed else ():
        if file.exists():  # cut off: the library takes a file that exists for complete
            file.resolve().unlink()
            file.unlink(missing_ok=True)
    disable_progress_bars()
    _set_timeouts()
    folder = snapshot_download(
        source.name, revision=source.revision, allow_patterns=wanted(source), ignore_patterns=list(LEFT_OUT)
    )
    return Path(folder)


@contextmanager
def _one_at_a_time(source: HubSource) -> Iterator[None]:
    """Within it, other processes that download the same source wait. Where there can be no lock, because the cache
    cannot be written or the lock's file is another user's, none waits: the library locks single files by itself."""
    file = local_cache.cache_folder() / ".locks" / f"tuner--{source.name.replace('/', '--')}"
    descriptor = None
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDONLY | os.O_CREAT, 0o644)  # whoever may read it may lock it
    try:
        if descriptor is not None:
            with suppress(OSError):  # some network disks have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def names_other_code(folder: Path) -> bool:
    """Whether classes of a base or a tokenizer are in another repository (`org/name--module.Class`), which is
    downloaded when it is first imported."""
    configurations = (local_cache.read_json(file) for file in folder.glob("*config.json"))
    return any("--" in str(found["auto_map"]) for found in configurations if "auto_map" in found)


def at_hand(source: HubSource, file: str) -> Path | None:
    """The path of a source's file in the cache; None where it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.name, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


@cache
def why_unreachable() -> str:
    """Why the hub cannot be reached; "" where it answers. Found out once a process, by one short request, through the
    same proxy as all others."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    if not endpoint().startswith(("http://", "https://")):
        return f"HF_ENDPOINT is no address: {endpoint()}"
    import httpx2

    timeout = httpx2.Timeout(_timeout_s(), connect=_CONNECTS_WITHIN_S)
    try:
        with httpx2.Client(timeout=timeout) as client, client.stream("HEAD", endpoint()):
            return ""
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        return f"the hub does not answer at {endpoint()}{_through()} ({reason.splitlines()[0][:100]})"


def offline_if_unreachable() -> str:
    """Where the hub does not answer, this process uses the cache alone from now on, without retries, which would take
    45 s. Gives `why_unreachable`."""
    if why := why_unreachable():
        go_offline()
    return why


def go_offline() -> None:
    """From now on this process uses the cache alone."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it read the environment when it was imported
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = True


def _through() -> str:
    """The proxy before the hub, without the password that its address may have."""
    parts = urlsplit(endpoint())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f" through the proxy {proxy.rpartition('@')[2].rpartition('://')[2]}"


def _timeout_s() -> float:
    with suppress(ValueError):
        return max(_ANSWERS_WITHIN_S, float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 0))
    return _ANSWERS_WITHIN_S


@cache
def _set_timeouts() -> None:
    """Gives every request to the hub a time limit. The library has none for listing files and resolving branches."""
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def limited(request: Any) -> None:
        limits = request.extensions.setdefault("timeout", {})
        for step in ("connect", "read", "write", "pool"):
            if limits.get(step) is None:
                limits[step] = _timeout_s()

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks = {**made.event_hooks, "request": [*made.event_hooks.get("request", ()), limited]}
        return made

    huggingface_hub.set_client_factory(client)
