"""What an error says of a disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.contract import InputError, Reason, Verdict
from tuner.disks import ask, is_full, is_of_disk, trouble_of


def error(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([str(path)] if path else []))


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class SafetensorError(Exception):
    """As the real one: no OSError, but with the error number in its text."""


@pytest.mark.parametrize(
    ("told", "number"),
    [
        (error(errno.ENOSPC), errno.ENOSPC),
        (error(errno.EDQUOT), errno.EDQUOT),
        (error(errno.EIO), errno.EIO),
        (error(errno.EROFS), errno.EROFS),
        (error(errno.ESTALE), errno.ESTALE),
        (error(errno.EMFILE), errno.EMFILE),
        (error(errno.EFBIG), errno.EFBIG),
        (SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"), errno.EIO),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (shutil.Error([("a", "b", str(error(errno.EDQUOT, Path("b"))))]), errno.EDQUOT),
        (OSError("[Errno 30] Failed to create file. Detail: [errno 30] Read-only file system"), errno.EROFS),
        (caused(InputError("cannot be read"), error(errno.EIO)), errno.EIO),
        (caused(RuntimeError("a"), caused(ValueError("b"), error(errno.ENOSPC))), errno.ENOSPC),
        (ValueError("loss is nan"), None),
        (error(errno.ENOENT, Path("/of/the/users")), None),
        (error(errno.EACCES, Path("/of/the/users")), None),
        (error(errno.ECONNREFUSED), None),
        (TimeoutError("no answer"), None),
        (KeyError(28), None),
    ],
)
def test_what_the_error_alone_says(told: Exception, number: int | None, tmp_path: Path) -> None:
    for folder in (None, tmp_path):  # which is there and takes a file: it adds nothing
        found = trouble_of(told, folder)
        assert (found and found.number) == number
    assert is_full(told) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert not list(tmp_path.iterdir())


def test_an_error_that_was_hidden_on_purpose_is_no_cause() -> None:
    try:
        try:
            raise error(errno.EIO)
        except OSError:
            raise ValueError("something else") from None
    except ValueError as found:
        assert trouble_of(found) is None


def removed(folder: Path) -> None:
    folder.rmdir()


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def a_file_in_its_place(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("")


@pytest.mark.parametrize(
    ("hurt", "number"), [(removed, errno.ENOENT), (renamed, errno.ENOENT), (a_file_in_its_place, errno.ENOTDIR)]
)
def test_a_folder_that_is_gone_is_asked(hurt: Callable[[Path], None], number: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    told = RuntimeError("Parent directory does not exist.")  # as torch says it
    assert ask(folder) is None and trouble_of(told, folder) is None
    hurt(folder)
    found = trouble_of(told, folder)
    assert found is not None and found.number == number and str(folder) in found.told
    assert trouble_of(told) is None


def test_a_folder_where_no_file_can_be_opened(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        with pytest.raises(OSError) as caught:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        found = ask(tmp_path)
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found is not None and found.number == errno.EMFILE
    assert trouble_of(caught.value) is not None


def test_what_is_denied_in_the_folder_and_not_elsewhere(tmp_path: Path) -> None:
    assert trouble_of(error(errno.EACCES, tmp_path / "adapters" / "x"), tmp_path) is not None
    assert trouble_of(error(errno.EPERM, tmp_path / "x"), tmp_path) is not None
    assert trouble_of(error(errno.EACCES, tmp_path.parent / "x"), tmp_path) is None
    assert trouble_of(error(errno.ENOENT, tmp_path / "x"), tmp_path) is None, "a file that a program did not write"


def test_a_network_is_no_disk(tmp_path: Path) -> None:
    with socket.socket() as one, pytest.raises(OSError) as caught:
        one.getpeername()
    assert caught.value.errno == errno.ENOTCONN and trouble_of(caught.value, tmp_path) is None


def test_its_verdict() -> None:
    full, failing = trouble_of(error(errno.ENOSPC, Path("a"))), trouble_of(error(errno.EIO, Path("b")))
    assert full is not None and failing is not None
    assert full.verdict.message == "no room on the disk (No space left on device: a)"
    assert failing.verdict.message == "the disk fails (Input/output error: b)"
    for verdict in (full.verdict, failing.verdict):
        assert verdict.reason is Reason.INFRASTRUCTURE and verdict.remedy and is_of_disk(verdict)
    assert not is_of_disk(Verdict(Reason.INFRASTRUCTURE, "its engine died"))
    assert not is_of_disk(Verdict(Reason.ERROR, full.verdict.message))
