"""Completes the environment of the process: its home folder, its user's name, and Python's own warnings.

A container may have no HOME, one that does not exist, or a user id without a name. Libraries (Ray, the hub's client,
torch) read these themselves, in this process and in those that it starts; so what is missing is put into the
environment once, before they are imported.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path

from tuner.contract import InputError
from tuner.streams import note

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""The variables in which Python's getpass looks for the user's name."""


def complete_environment() -> None:
    """Puts into the environment what is missing there. To be called before a library is imported."""
    _give_home()
    _give_name()
    _warnings_only_warn()


def require_current_folder() -> None:
    """Raises InputError where the current folder was removed or may not be read: relative paths need it, and so does
    Ray."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(
            f"the current folder cannot be found ({error.strerror})", remedy="cd to a folder that is there"
        ) from error


def ray_token_file() -> Path:
    """Where Ray looks for its token."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def ray_token() -> str | None:
    """The token of the clusters that this user reaches; None where there is none, or none that can be read."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given.strip()
    try:
        return ray_token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def private_folder() -> Path:
    """A folder of this user's alone below the temporary folder: the same at each call, or a new one where somebody else
    has made that. Raises OSError where none can be made.
    """
    place = Path(tempfile.gettempdir(), f"tuner-{os.getuid()}")
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return Path(tempfile.mkdtemp(prefix="tuner-"))
    return place


def _give_home() -> None:
    """Sets HOME to an existing folder. It need not be writable: it may hold a cache that is only read."""
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no user of this id
        home = Path()
    if not home.is_absolute() or not home.is_dir():
        told = f"{home} is no folder" if home.is_absolute() else "there is none"
        home = private_folder()
        note(f"no home folder ({told}): caches and Ray's token lie in {home}")
    os.environ["HOME"] = str(home)  # also where Python has it from the list of users: Ray's C++ side does not


def _give_name() -> None:
    """Sets USER where the user id has no name."""
    if any(os.environ.get(name) for name in _NAMES):
        return
    try:
        import pwd

        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = str(os.getuid())


def _warnings_only_warn() -> None:
    """Removes the action "error" (PYTHONWARNINGS, -W): it is meant for a user's own tests, and every library warns when
    it is imported."""
    told = os.environ.get("PYTHONWARNINGS", "")
    kept = [one for one in told.split(",") if not _is_error(one)]
    if told and ",".join(kept) != told:
        os.environ["PYTHONWARNINGS"] = ",".join(kept)
    if any(_is_error(option) for option in sys.warnoptions):
        sys.warnoptions[:] = [option for option in sys.warnoptions if not _is_error(option)]
        warnings.filters[:] = [one for one in warnings.filters if one[0] != "error"]  # type: ignore[index]
        warnings.simplefilter("default", append=True)  # this call also tells Python that the filters have changed


def _is_error(option: str) -> bool:
    action = option.partition(":")[0].strip()
    return bool(action) and "error".startswith(action)
