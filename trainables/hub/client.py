"""Requests to the hub: resolves names to commits, and downloads files into this machine's cache.

A branch may move during a search. So every hub id is resolved to a commit once, before anything else, and rows, trials,
resumes and merges all use that commit. Files are downloaded once a machine, by the first process that needs them. A
commit that is cached is read from the cache without a request to the hub and without a lock.
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
"""Seconds for a connection when this module asks whether the hub can be reached."""
_ANSWERS_WITHIN_S = 10.0
"""Seconds after which a request counts as unanswered; the hub's library has no limit of its own."""


def commit(source: HubSource) -> str:
    """The commit that a source's revision stands for now; where the hub cannot be reached, by the cache.

    Raises InputError.
    """
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
    """The folder of a base or a tokenizer in this machine's cache. Missing files are downloaded by one process at a
    time.

    For a commit that is cached there is no request and no lock. Raises InputError.
    """
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
        return held.folder  # another process has downloaded it, while this one waited for the lock
    for file in (held.folder / name for name in held.missing) if held is not None and held.is_listed else ():
        if file.exists():  # it is cut off: the library takes any file that exists for complete
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
    """Within it, other processes that download the same source wait.

    None waits where there can be no lock, because the cache cannot be written or the lock's file is another user's. The
    library then still locks single files.
    """
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
    """Why the hub cannot be reached; "" where it answers.

    Found out once a process by one short request, through the same proxy as all others.
    """
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
    """Makes this process use the cache alone if the hub does not answer: retries would take 45 s. Gives
    `why_unreachable`."""
    if why := why_unreachable():
        go_offline()
    return why


def go_offline() -> None:
    """Makes this process use the cache alone from now on."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it read the environment when it was imported
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = True


def _through() -> str:
    """In words: the proxy before the hub, without the user and password that its address may have; "" for none."""
    parts = urlsplit(endpoint())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f" through the proxy {proxy.rpartition('@')[2].rpartition('://')[2]}"


def _timeout_s() -> float:
    """Seconds that a request may take: the user's HF_HUB_ETAG_TIMEOUT where it is longer."""
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
        for phase in ("connect", "read", "write", "pool"):
            if limits.get(phase) is None:
                limits[phase] = _timeout_s()

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks = {**made.event_hooks, "request": [*made.event_hooks.get("request", ()), limited]}
        return made

    huggingface_hub.set_client_factory(client)
