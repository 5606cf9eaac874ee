"""Turns errors of the hub, the network and the cache into InputError, which says what to do."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.hub.sources import HubSource
from tuner.contract import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
_OWN_CACHE = "set HF_HOME to a folder of your own"


@contextmanager
def input_errors(source: HubSource) -> Iterator[None]:
    """Within it, errors of a request, a download or the cache are raised as InputError."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, httpx2.HTTPError, errors.RevisionResolutionError) as error:
        if (found := in_words(error, source)) is None:
            raise
        raise found from error


def in_words(error: BaseException, source: HubSource) -> InputError | None:
    """An error as InputError; None where it is of another kind. Its causes are searched too, as libraries wrap
    errors."""
    chain = list(_chain(error))
    for say in (_refused, _broken_off, _disk, _gone):
        for link in chain:
            if (found := say(link, source)) is not None:
                return found
    return None


def out_of_reach(source: HubSource, why: str, missing: tuple[str, ...] = ()) -> InputError:
    """The error for a source that is not cached completely while the hub cannot be reached.

    why: the hub cannot be reached. missing: files that are not cached, if some are.
    """
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return InputError(
            f"the cache has only a part of it: {', '.join(missing[:3])}{more} missing or cut off; and {why}",
            where=f"{source.name}{f' at {source.revision}' if source.revision else ''}",
            expected="all files of it in the cache, or a hub that answers",
            remedy=f"fetch the rest where the hub can be reached: {_download(source)}",
        )
    revision = f" at {source.revision}" if source.revision else ""
    return InputError(
        f"no such folder, and as a hub id it is not in the cache{revision}; and {why}",
        where=source.name,
        expected="a path, or a hub id (org/name)",
        remedy=f"check the path, or fetch it where the hub can be reached: {_download(source)}",
    )


def endpoint() -> str:
    """The hub's address, without a slash at its end."""
    return os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"


def _download(source: HubSource) -> str:
    """The command that a person runs to fill the cache; for rows, with the files that `datasets` prepares."""
    if source.kind == "dataset":
        revision = f", revision={source.revision!r}" if source.revision else ""
        return f'python -c "import datasets; datasets.load_dataset({source.name!r}{revision})"'
    return f"hf download {source.name}{f' --revision {source.revision}' if source.revision else ''}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException, source: HubSource) -> InputError | None:
    """An error that the hub answered with."""
    from huggingface_hub import errors

    what = "dataset" if source.kind == "dataset" else "model"
    if not isinstance(error, errors.HfHubHTTPError):
        return None
    status = error.response.status_code
    match error:
        case errors.RevisionNotFoundError():
            return InputError(
                f"the hub has no revision {source.revision!r} of it", where=source.name,
                expected=f"a branch, a tag or a commit in {source.setting}",
            )  # fmt: skip
        case errors.DisabledRepoError():
            return InputError("the hub has disabled it", where=source.name, expected=f"a {what} that can be fetched",
                              remedy=f"read why at {endpoint()}/{source.name}")  # fmt: skip
        case _ if isinstance(error, errors.GatedRepoError) or status == 403:
            return InputError(
                "is gated: the hub does not give it to this account", where=source.name,
                remedy=f"accept its terms at {endpoint()}/{source.name}, and set HF_TOKEN on every node",
            )  # fmt: skip
        case _ if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            return InputError(
                f"no such folder, and the hub has no {what} of this name, or none that this token may read",
                where=source.name, expected=f"a path, or the hub id of a {what}",
                remedy="check the name; for a private or gated one set HF_TOKEN on every node",
            )  # fmt: skip
    if status == 407:
        return InputError("the proxy asks for a name and a password (HTTP 407)", where=source.name,
                          remedy="put them into HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT")  # fmt: skip
    if status == 429:
        return InputError("the hub has had too many questions from this account or address (HTTP 429)",
                          where=source.name, remedy="wait some minutes; with HF_TOKEN set, more are answered",
                          )  # fmt: skip
    if status >= 500:
        return InputError(f"the hub, or a proxy before it, is in trouble (HTTP {status})", where=source.name,
                          remedy="try again later: what has arrived whole is not fetched again")  # fmt: skip
    return InputError(f"the hub does not give it out (HTTP {status})", where=source.name,
                      remedy=f"look at {endpoint()}/{source.name}")  # fmt: skip


def _broken_off(error: BaseException, source: HubSource) -> InputError | None:
    """An error of the network, or of another server at the hub's address."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, json.JSONDecodeError | errors.FileMetadataError | httpx2.TooManyRedirects):
        return InputError(f"what answers at {endpoint()} is no hub ({first_line(error)})", where=source.name,
                          expected="the hub, or a mirror of it",
                          remedy="look at HF_ENDPOINT, and whether a proxy or a login page answers in the hub's place",
                          )  # fmt: skip
    if isinstance(error, httpx2.TimeoutException):
        return InputError(f"the hub does not answer in time ({type(error).__name__})", where=source.name,
                          remedy="try again; for a slow one set HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT to 60",
                          )  # fmt: skip
    if isinstance(error, httpx2.TransportError):
        return InputError(f"the hub broke off ({type(error).__name__}: {first_line(error)})", where=source.name,
                          remedy="try again: what has arrived whole is not fetched again")  # fmt: skip
    return None


def _disk(error: BaseException, source: HubSource) -> InputError | None:
    """An error of the disk that the cache is on."""
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError):
        return None
    at = f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    if error.errno in _NO_ROOM:
        return InputError(f"no room for it in the hub's cache ({at})", where=source.name,
                          remedy="make room, or set HF_HOME to another disk")  # fmt: skip
    if error.errno in _NO_WRITING:
        return InputError(f"the hub's cache cannot be used for it ({at})", where=source.name,
                          expected="a cache that can be read and has all files of it, or one that can be written",
                          remedy=f"{_OWN_CACHE}, or have its owner run: {_download(source)}")  # fmt: skip
    if error.filename is None:
        return None
    return InputError(f"the hub's cache fails ({at})", where=source.name, expected="a disk that works",
                      remedy=_OWN_CACHE)  # fmt: skip


def _gone(error: BaseException, source: HubSource) -> InputError | None:
    """An error that the libraries raise where the hub cannot be reached, and that does not say why."""
    from huggingface_hub import errors

    gone = (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, ConnectionError)
    return out_of_reach(source, f"the hub does not answer at {endpoint()}") if isinstance(error, gone) else None


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
