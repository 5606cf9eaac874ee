"""The hub: which of what a search names lies there, at which commit, and its files in this machine's cache.

A branch may move while a search runs, so every hub id is resolved to a commit once, before anything else, and that
commit is what prepares, trains, resumes and merges. Files are fetched once a machine, by the first who asks; a worker
that has them asks the hub for nothing more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from trainables.settings import DataSettings, ModelSettings, Settings
from tuner.contract import InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WAIT_S = 3.0
FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")
"""What a base and its tokenizer are loaded from."""
_LEFT = ("original/*", "onnx/*", "consolidated*")
"""The same weights once more, in the words of other libraries."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
"""Of files with rows: a name that ends so is no hub id."""


@dataclass(frozen=True)
class Source:
    """A hub repository that the settings name. setting: where its revision stands in them."""

    name: str
    kind: Literal["model", "dataset"]
    setting: str
    revision: str | None

    @property
    def is_pinned(self) -> bool:
        return bool(self.revision and _COMMIT.fullmatch(self.revision))


def is_hub_id(name: str) -> bool:
    """Whether `name` reads as `org/name` (or a legacy bare name) and is not a path that exists."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def is_dataset_id(name: str) -> bool:
    """Whether rows of this name are a dataset on the hub, and no file that is missing."""
    return is_hub_id(name) and Path(name).suffix.lower() not in SUFFIXES


def bases(model: ModelSettings) -> list[Source]:
    """The base and its tokenizer, as far as they are on the hub."""
    found = [Source(model.model_name_or_path, "model", "model.model_revision", model.model_revision)]
    if model.tokenizer != model.model_name_or_path:
        found.append(Source(model.tokenizer, "model", "model.tokenizer_revision", model.tokenizer_revision))
    return [source for source in found if is_hub_id(source.name)]


def rows(data: DataSettings) -> list[Source]:
    """The datasets, as far as they are on the hub."""
    found = [Source(data.train, "dataset", "data.revision", data.revision)]
    if data.validation is not None:
        revision = data.validation_revision or data.revision
        found.append(Source(data.validation, "dataset", "data.validation_revision", revision))
    return [source for source in found if is_dataset_id(source.name)]


def unpinned(settings: Settings) -> list[Source]:
    """What the settings name on the hub without saying which commit of it."""
    return [source for source in (*bases(settings.model), *rows(settings.data)) if not source.is_pinned]


def commit(source: Source) -> str:
    """The commit that a source's revision stands for now; without a hub, the one that the cache has of it."""
    unreachable = offline_if_unreachable(source.name)
    from huggingface_hub import HfApi

    with _told(source, unreachable):
        found = HfApi().resolve_revision(source.name, repo_type=source.kind, revision=source.revision)
        return str(found.resolved)


def fetch(source: Source) -> Path:
    """The files of a base or tokenizer in this machine's cache: what is missing is fetched, by one process at a time.

    Where all are there, the hub is not asked, if the revision is a commit.
    """
    unreachable = offline_if_unreachable(source.name)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    locks = Path(constants.HF_HUB_CACHE, ".locks")
    with _told(source, unreachable):
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"tuner--{source.name.replace('/', '--')}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return Path(
                snapshot_download(
                    source.name, revision=source.revision, allow_patterns=list(FILES), ignore_patterns=list(_LEFT)
                )
            )


def at_hand(source: Source, file: str) -> Path | None:
    """A file of a source, if the cache has it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.name, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


@cache
def reachable() -> bool:
    """Whether the hub answers. Behind a proxy, or in offline mode, nothing is asked."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    endpoint = urlsplit(_endpoint())
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=_WAIT_S).close()
    except OSError:
        return False
    return True


def offline_if_unreachable(*names: str) -> bool:
    """Where one of `names` is a hub id and the hub does not answer: the cache alone is used, without retries, which
    would take 45 s."""
    if not any(is_hub_id(name) for name in names) or reachable():
        return False
    go_offline()
    return True


def go_offline() -> None:
    """From here on this process uses the cache alone."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it read the environment when it was imported
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_HUB_OFFLINE = True


def refused(error: BaseException, source: Source) -> InputError | None:
    """What the hub has against a source, in words; None where it is not the hub that speaks. Libraries raise errors of
    their own around the hub's."""
    from huggingface_hub import errors

    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, errors.HfHubHTTPError | errors.OfflineModeIsEnabled):
        seen = seen.__cause__ or seen.__context__
    what = "a dataset" if source.kind == "dataset" else "a model"
    match seen:
        case errors.RevisionNotFoundError():
            return InputError(
                f"the hub has no revision {source.revision!r} of it", where=source.name,
                expected=f"a branch, a tag or a commit in {source.setting}",
            )  # fmt: skip
        case errors.HfHubHTTPError() if isinstance(seen, errors.GatedRepoError) or _status(seen) == 403:
            return InputError(
                "is gated: the hub does not give it to this account", where=source.name,
                remedy=f"accept its terms at {_endpoint()}/{source.name}, and set HF_TOKEN on every node",
            )  # fmt: skip
        case errors.HfHubHTTPError() if isinstance(seen, errors.RepositoryNotFoundError) or _status(seen) == 401:
            return InputError(
                f"no such folder, and the hub has no {what[2:]} of this name, or none that this token may read",
                where=source.name, expected=f"a path, or the hub id of {what}",
                remedy="check the name; for a private or gated one set HF_TOKEN on every node",
            )  # fmt: skip
        case errors.HfHubHTTPError():
            return InputError(f"the hub does not give it out (HTTP {_status(seen)})", where=source.name,
                              remedy="try again later")  # fmt: skip
    return None


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


@contextmanager
def _told(source: Source, unreachable: bool) -> Iterator[None]:
    """What goes wrong with the hub, as the user reads it."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except httpx2.TransportError as error:
        raise InputError(f"the hub broke off ({type(error).__name__}: {error})", where=source.name,
                         remedy="try again: what has arrived whole is not fetched again") from error  # fmt: skip
    except (OSError, errors.RevisionResolutionError) as error:  # the hub's own errors are OSErrors, most of them
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"no room for it in the hub's cache ({error.strerror})", where=source.name,
                             remedy="make room, or set HF_HOME to another disk") from error  # fmt: skip
        gone = isinstance(error, errors.LocalEntryNotFoundError | errors.RevisionResolutionError)
        if not unreachable and (told := refused(error, source)) is not None:
            raise told from error
        if not unreachable and not gone and not isinstance(error, ConnectionError):
            raise
        raise nowhere(source) from error


def nowhere(source: Source) -> InputError:
    """Neither a folder nor in the cache, and no hub to ask."""
    revision = f" at {source.revision}" if source.revision else ""
    return InputError(
        f"no such folder, and as a hub id it is neither in the cache{revision} nor is the hub reachable",
        where=source.name,
        expected="a path, or a hub id (org/name)",
        remedy=f"check the path, or download the {source.kind} first",
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
