"""The hub asked: the commits of what a search names, and its files, brought into this machine's cache.

A branch may move while a search runs, so every hub id is resolved to a commit once, before anything else, and that
commit is what prepares, trains, resumes and merges. Files are fetched once a machine, by the first who asks. A commit
that the cache holds is read from there: nobody asks the hub again, and nobody waits for a lock.
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
from trainables.hub.refusals import endpoint, told
from trainables.hub.sources import LEFT_OUT, Source, wanted

_CONNECTS_WITHIN_S = 3.0
_ANSWERS_WITHIN_S = 10.0
"""Silence after which a question counts as unanswered; the hub's library by itself waits without end."""


def commit(source: Source) -> str:
    """The commit that a source's revision stands for now; without a hub, the one that the cache has of it."""
    why = why_unreachable()
    with told(source):
        if why:
            held = local_cache.cached_commit(source)
            if held is None:
                raise refusals.out_of_reach(source, why)
            return held
        from huggingface_hub import HfApi

        _be_patient()
        return str(HfApi().resolve_revision(source.name, repo_type=source.kind, revision=source.revision).resolved)


def fetch(source: Source) -> Path:
    """The folder of a base or a tokenizer in this machine's cache; what is missing is fetched, by one process at a
    time. A commit that the cache holds is neither asked for nor locked."""
    with told(source):
        held = local_cache.look(source)
        if held is not None and held.is_whole and held.is_listed and source.is_pinned:
            return held.folder
        if why := why_unreachable():
            if held is not None and held.is_whole:
                return held.folder
            raise refusals.out_of_reach(source, why, held.missing if held else ())
        with _one_at_a_time(source):
            return _download(source)


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    held = local_cache.look(source)
    if held is not None and held.is_whole and held.is_listed and source.is_pinned:
        return held.folder  # fetched by the process that this one has waited for
    for file in (held.folder / name for name in held.missing) if held is not None and held.is_listed else ():
        if file.exists():  # cut off: the library takes what is there for whole
            file.resolve().unlink()
            file.unlink(missing_ok=True)
    disable_progress_bars()
    _be_patient()
    folder = snapshot_download(
        source.name, revision=source.revision, allow_patterns=wanted(source), ignore_patterns=list(LEFT_OUT)
    )
    return Path(folder)


@contextmanager
def _one_at_a_time(source: Source) -> Iterator[None]:
    """Lets others wait who fetch the same. Where no lock can be had, because the cache cannot be written or the lock's
    file is another user's, nobody waits: the library keeps single files apart by itself."""
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
    """Whether classes of a base or a tokenizer are in another repository (`org/name--module.Class`), which is fetched
    when it is first imported."""
    configurations = (local_cache.read_json(file) for file in folder.glob("*config.json"))
    return any("--" in str(found["auto_map"]) for found in configurations if "auto_map" in found)


def at_hand(source: Source, file: str) -> Path | None:
    """A file of a source, if the cache has it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.name, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


@cache
def why_unreachable() -> str:
    """Why the hub cannot be asked, or nothing where it answers. Asked once a process, by one short request that takes
    the way of all others, past or through a proxy."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    if not endpoint().startswith(("http://", "https://")):
        return f"HF_ENDPOINT is no address: {endpoint()}"
    import httpx2

    timeout = httpx2.Timeout(_patience(), connect=_CONNECTS_WITHIN_S)
    try:
        with httpx2.Client(timeout=timeout) as client, client.stream("HEAD", endpoint()):
            return ""
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        return f"the hub does not answer at {endpoint()}{_through()} ({reason.splitlines()[0][:100]})"


def offline_if_unreachable() -> str:
    """Where the hub does not answer, this process uses the cache alone from here on, without retries, which would take
    45 s. Why it does not, or nothing."""
    if why := why_unreachable():
        go_offline()
    return why


def go_offline() -> None:
    """From here on this process uses the cache alone."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it read the environment when it was imported
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = True


def _through() -> str:
    """The proxy on the way to the hub, without the password that its address may hold."""
    parts = urlsplit(endpoint())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f" through the proxy {proxy.rpartition('@')[2].rpartition('://')[2]}"


def _patience() -> float:
    with suppress(ValueError):
        return max(_ANSWERS_WITHIN_S, float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 0))
    return _ANSWERS_WITHIN_S


@cache
def _be_patient() -> None:
    """Gives every question to the hub a time limit. Its library has none where it lists files and resolves branches."""
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def limited(request: Any) -> None:
        limits = request.extensions.setdefault("timeout", {})
        for step in ("connect", "read", "write", "pool"):
            if limits.get(step) is None:
                limits[step] = _patience()

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks = {**made.event_hooks, "request": [*made.event_hooks.get("request", ()), limited]}
        return made

    huggingface_hub.set_client_factory(client)
