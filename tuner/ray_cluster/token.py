"""Keeps Ray's token readable by its owner alone: whoever has it can run code on the cluster."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from tuner.surroundings import private_folder, ray_token_file

OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


def guard_token() -> str:
    """Makes the token of a local Ray where there is none, and readable by its owner alone. Returns a sentence for the
    user on what it changed, or "".

    Ray would make the token with mode 0644, readable by everybody on the machine. A token of that mode is changed too:
    whether a Ray or a person set the mode cannot be told, and nobody should need another user's token.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return ""
    path = ray_token_file()
    try:
        if not path.exists():
            path = _made(path)
            return f"a token for Ray was made, readable by you alone: {path}"
        if stat.S_IMODE(path.stat().st_mode) & ~OWNER_ONLY:
            path.chmod(OWNER_ONLY)
            return f"the token of Ray could be read by others: {path} is yours alone now (mode 0600)"
    except OSError as error:
        return f"others may be able to read the token of Ray: {path} ({error.strerror})"
    return ""


def _made(path: Path) -> Path:
    """Makes a token at `path`; where that cannot be written (a read-only home folder), in `private_folder`, and sets
    RAY_AUTH_TOKEN_PATH for Ray. Returns where it is."""
    try:
        _make(path)
    except OSError:
        path = private_folder() / "auth_token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
        if not path.exists():
            _make(path)
    return path


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write(secrets.token_hex(32))
    with suppress(FileExistsError):  # another search was first
        os.link(beside, path)
    beside.unlink()
