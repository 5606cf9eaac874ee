"""Keeps runs in an object store: copies files between the store and a working copy on every node.

A run is written into a local folder (`config.paths.storage_folder`), like any run, and mirrored: the driver's files by
`Mirror`, a trial's own by the worker that trains it (`push`). An object is always replaced and never appended to; the
last write wins. What is promised: an event is on the driver's disk before a listener gets it, and in the store within a
few seconds; when the search ends, everything is in the store. If the driver's disk is lost, at most these seconds are.
Nothing is ever deleted in the store: adapters of trials that are no longer among the best stay until somebody removes
them.

The filesystems are PyArrow's: s3://, gs://, hdfs://, file://; credentials come from the environment or the machine's
role. `?endpoint_override=host:port&scheme=http` in the URI reaches another S3-compatible server.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tuner.config.paths import storage_uri
from tuner.contract import InputError
from tuner.error_text import first_line
from tuner.results.lock import is_held
from tuner.results.untrusted_read import inside, plain_files

EVERY_S = 2.0
"""Seconds between two writes of the driver's files; each writes the complete ledger."""
HELD_S = 90.0
"""Seconds for which a driver's claim to a run is valid. It is renewed three times in this time; then another driver may
take the run."""
_PIECE = 8 * 2**20
"""Bytes that are copied at a time."""
LOCK = ".lock.json"
"""The object in which a driver claims a run."""
_GROW = ("trials.jsonl", "study.journal")
"""Files that are only appended to: of two copies the longer is the newer."""
_LOCAL = ("tune", "adapters", "control", "best.new", "best.old", ".lock")
"""Names that the driver does not mirror: Ray's own state, what the workers push, and requests to this driver."""


def opened(uri: str) -> tuple[Any, str]:
    """PyArrow's filesystem for a URI, and the path in it. Raises InputError for a URI that PyArrow cannot open."""
    # Newer SDKs add checksums in a form that other S3-compatible servers refuse (HTTP 411).
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    from pyarrow import fs

    base, _, query = uri.partition("?")
    # A run's place follows the options in its URI: s3://bucket/runs?scheme=http/first/best
    options, *inner = query.split("/")
    try:
        found, path = fs.FileSystem.from_uri(base + ("?" + options if options else ""))
    except (ValueError, OSError) as error:
        raise InputError(
            f"{uri} cannot be opened ({first_line(error)})",
            where="run.storage_path",
            expected="a folder, or a URI such as s3://bucket/runs or gs://bucket/runs",
        ) from error
    return found, "/".join([path.rstrip("/"), *inner])


def try_uri(uri: str) -> None:
    """Writes an object and reads it back. Raises InputError if that fails."""
    filesystem, path = opened(uri)
    name, content = f"{path}/.tuner-{os.uname().nodename}", secrets.token_bytes(8)
    try:
        _write(filesystem, name, content)
        with filesystem.open_input_stream(name) as stream:
            read = stream.read()
    except OSError as error:
        raise InputError(
            f"{uri} cannot be written and read ({first_line(error)})",
            where="run.storage_path",
            expected="a bucket that is there, and credentials that may write to it",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the machine's role) on every node",
        ) from error
    if read != content:
        raise InputError(f"{uri} does not give back what was written", where="run.storage_path")


def push(folder: Path, seen: dict[Path, tuple[int, int]] | None = None, skip: tuple[str, ...] = ()) -> None:
    """Copies the files of a working copy to the store. Does nothing for a folder that is no working copy.

    seen: size and modification time (ns) of each file that is in the store already; updated here. skip: names directly
    in the folder that are not copied.
    """
    uri = storage_uri(folder)
    if uri is None:
        return
    filesystem, path = opened(uri)
    for file in _files(folder, skip):
        try:
            state = file.stat()
            mark = (state.st_size, state.st_mtime_ns)
            if seen is not None and seen.get(file) == mark:
                continue
            with file.open("rb") as source:
                _write(filesystem, f"{path}/{file.relative_to(folder).as_posix()}", source)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except PermissionError:  # another user's, and not the search's
            logging.getLogger(__name__).warning("%s cannot be read and is not carried to the store", file)
        if seen is not None:
            seen[file] = mark


def pull(folder: Path, skip: tuple[str, ...] = ()) -> None:
    """Copies files from the store into a working copy, if their size differs here. A ledger or journal that is longer
    here is newer and stays. skip: names directly in the folder that are not copied."""
    uri = storage_uri(folder)
    if uri is None:
        return
    from pyarrow import fs

    filesystem, path = opened(uri)
    for info in filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True)):
        inner = info.path[len(path) :].strip("/")
        if info.type is not fs.FileType.File or inner.split("/")[0] in skip or inner == LOCK:
            continue
        file = inside(folder, inner)
        if file is None:  # `..` is a valid name in a bucket, and a link here may lead anywhere
            continue
        have = file.stat().st_size if file.is_file() else -1
        if have == info.size or (file.name in _GROW and have > info.size):
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
        with filesystem.open_input_stream(info.path) as stream, fresh.open("wb") as target:
            shutil.copyfileobj(stream, target, _PIECE)
        fresh.replace(file)


def pull_run(folder: Path) -> None:
    """Copies a run from the store, to read or resume it: everything but rows and adapters. Does nothing while a driver
    on this machine writes the run: the working copy is newer then."""
    if storage_uri(folder) is not None and not is_held(folder):
        pull(folder, skip=(*_LOCAL, "data"))


def exists(folder: Path) -> bool:
    """Whether the store has the run of this working copy."""
    uri = storage_uri(folder)
    if uri is None:
        return False
    from pyarrow import fs

    filesystem, path = opened(uri)
    info = filesystem.get_file_info(f"{path}/trials.jsonl")
    return info.type is fs.FileType.File and info.size > 0


def is_written(folder: Path) -> bool:
    """Whether a driver, on any machine, has a valid claim to this run."""
    uri = storage_uri(folder)
    return uri is not None and _holder(*opened(uri)) is not None


def forget(folder: Path) -> None:
    """Frees the name of a run that never began: an empty ledger counts as no run."""
    uri = storage_uri(folder)
    if uri is None:
        return
    filesystem, path = opened(uri)
    with suppress(OSError):
        _write(filesystem, f"{path}/trials.jsonl", b"")


class Mirror:
    """Copies the driver's files to the store while a search runs, from a thread of its own, and claims the run.

    Does nothing if the run is not kept in an object store. Raises InputError if another driver has claimed the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._uri = folder, storage_uri(folder)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._holder = f"process {os.getpid()} on {os.uname().nodename}, {secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        if self._uri is not None:
            self._take()
            self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
            self._thread.start()

    def data(self) -> None:
        """Copies the prepared rows to the store, for every node."""
        push(self._folder / "data")

    def fetch(self, place: str | None) -> None:
        """Copies a trial's adapter, which a worker has pushed, into this working copy. place: relative to the run
        folder."""
        if self._uri is not None and place and not (self._folder / place).is_dir():
            pull(self._folder / place)

    def close(self) -> None:
        """Copies what has changed since the last time, and gives up the claim. Raises InputError if the store refuses
        it."""
        if self._thread is None or self._uri is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        try:
            self._push()
        except OSError as error:
            raise InputError(
                f"the store does not take the run ({first_line(error)})",
                where=self._uri,
                expected="a store that answers",
                remedy=f"the run is whole in {self._folder}",
            ) from error
        finally:
            with suppress(OSError):
                self._say("")

    def _run(self) -> None:
        told = time.monotonic()
        while not self._ended.wait(EVERY_S):
            try:
                if time.monotonic() - told > HELD_S / 3:
                    self._say()
                    told = time.monotonic()
                self._push()
            except Exception:  # the store is unreachable, or its answer is wrong: the run goes on, and this is retried
                logging.getLogger(__name__).exception("mirroring %s", self._folder)

    def _push(self) -> None:
        push(self._folder, self._seen, skip=(*_LOCAL, "data"))

    def _take(self) -> None:
        """Claims the run. Raises InputError if another driver has claimed it."""
        assert self._uri is not None
        try_uri(self._uri)
        if held := _holder(*opened(self._uri)):
            raise InputError(
                f"the run {self._folder.name!r} is being written by another driver ({held})",
                where=self._uri,
                remedy=f"wait for it; a driver that died is forgotten after {HELD_S:.0f} s",
            )
        self._say()

    def _say(self, holder: str | None = None) -> None:
        """Writes the claim to the run. holder: None for this driver, "" to give it up."""
        assert self._uri is not None
        filesystem, path = opened(self._uri)
        held = {"holder": self._holder if holder is None else holder, "time": time.time()}
        _write(filesystem, f"{path}/{LOCK}", json.dumps(held).encode())


def _holder(filesystem: Any, path: str) -> str | None:
    """The driver with a valid claim to a run; None if there is none. Raises InputError if that cannot be found out."""
    try:
        with filesystem.open_input_stream(f"{path}/{LOCK}") as stream:
            held = json.loads(stream.read())
        return str(held["holder"]) or None if time.time() - held["time"] < HELD_S else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"it could not be found out whether another driver writes the run ({first_line(error)})",
            where=f"{path}/{LOCK}",
            expected="a store that answers, and credentials that may read there",
            remedy="try again; two drivers must not write one run",
        ) from error
    except (ValueError, KeyError, TypeError):
        return None


def _files(folder: Path, skip: tuple[str, ...]) -> Iterator[Path]:
    for file in plain_files(folder):
        if file.relative_to(folder).parts[0] not in skip and not file.name.endswith(".new"):
            yield file


def _write(filesystem: Any, path: str, content: bytes | IO[bytes]) -> None:
    if filesystem.type_name == "local":
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        shutil.copyfileobj(io.BytesIO(content) if isinstance(content, bytes) else content, stream, _PIECE)
