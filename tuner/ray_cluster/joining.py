"""Checks a cluster before it is joined: where it is, whether it answers, whether it asks for a token.

Ray is not imported for that: it reads its settings when it is imported, and would try to connect for minutes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import cache

from tuner.addresses import AUTO, ENVIRONMENT, go_past_proxies, joins, place
from tuner.answers import Answer, No, Unknown, Yes
from tuner.contract import InputError
from tuner.surroundings import ray_token

AUTH_MODE = "RAY_AUTH_MODE"
"""The environment variable that tells Ray to send a token ("token") or not ("disabled")."""
_LISTENS_WITHIN_S = 5
"""Seconds for a connection."""
_ANSWERS_WITHIN_S = (5, 15)
"""Seconds for an answer to the first and to the second attempt: a head that starts many workers has taken over 5."""
_RAY_IMPORTS_WITHIN_S = 120
"""Seconds for another process to import Ray and find a cluster."""
_FIND = "from ray._private import services; print(services.canonicalize_bootstrap_address('auto'))"


def require_cluster(address: str) -> str:
    """Makes sure that a cluster answers at `address`, and sets the environment for Ray to reach it: past proxies, with
    a token or without. Returns its host:port, also for `auto`.

    Raises InputError where nobody answers, where a token is wanted and there is none, or where that cannot be told.
    """
    found = _automatic() if address == AUTO else address
    go_past_proxies(place(found)[0])
    if isinstance(silent := listens(found), Unknown | No):
        raise _no_answer(address, found, silent.why)
    match asks_for_token(found):
        case Yes():
            # Read when ray is imported. Without it this cluster refuses a client, after 20 s
            os.environ[AUTH_MODE] = "token"
            if ray_token() is None:
                raise wants_token(found)
        case No() if AUTH_MODE in os.environ:
            # Such a cluster lets a client in that sends a token, and cancels its actors before they start. "token" may
            # be there without the user's doing: Ray sets it in a process that has started a Ray of its own
            os.environ[AUTH_MODE] = "disabled"
        case Unknown(why) if AUTH_MODE not in os.environ:
            raise InputError(
                f"it could not be found out whether the cluster at {found} asks for a token ({why})",
                where="run.address",
                expected="the head of a Ray cluster, which tells",
                remedy=f"set {AUTH_MODE} to token where it asks for one, to disabled where it does not",
            )
    return found


def listens(address: str) -> Answer:
    """Whether host:port takes connections."""
    host, port = place(address)
    try:
        socket.create_connection((host, port), timeout=_LISTENS_WITHIN_S).close()
    except ConnectionRefusedError as error:
        return No(str(error))
    except OSError as error:
        return Unknown(str(error) or type(error).__name__)
    return Yes()


def asks_for_token(address: str) -> Answer:
    """Whether a cluster's head refuses a call without a token."""
    import grpc

    why = ""
    for timeout in _ANSWERS_WITHIN_S:
        try:
            with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
                channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=timeout)
            return No()
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return Yes()
            why = f"{error.code().name.lower()}: {error.details()}"[:200]
        except ValueError as error:
            why = str(error)[:200]
    return Unknown(why)


def _automatic() -> str:
    """The cluster that Ray takes `auto` for: the one that RAY_ADDRESS names, as in a job, or else one on this
    machine."""
    named = joins(None)
    return named if named not in (None, AUTO) else _running_here()


@cache
def _running_here() -> str:
    """The cluster that Ray finds on this machine, asked in another process, because Ray must not be imported here yet.
    Raises InputError."""
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _FIND],
            env=environment, capture_output=True, text=True, timeout=_RAY_IMPORTS_WITHIN_S, check=False,
        )  # fmt: skip
        said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["it said nothing"]
        if done.returncode == 0:
            place(said[-1])
            return said[-1]
        why = said[-1]
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        why = str(error)
    raise InputError(
        f"no Ray cluster was found on this machine ({why[:200]})",
        where=f"run.address, or {ENVIRONMENT}: {AUTO}",
        expected="a cluster that was started here with ray start, or its address",
        remedy="start one with: ray start --head; or leave the address out, and the search starts Ray itself",
    )


def _no_answer(address: str, found: str, why: str) -> InputError:
    stale = "the file ray_current_cluster in Ray's temporary folder names a cluster that has ended: ray stop removes it"
    return InputError(
        f"no Ray cluster answers at {found} ({why})",
        where="run.address",
        expected="the address of a running cluster, such as 10.0.0.1:6379, or nothing for this machine",
        remedy=stale if address == AUTO else "start one with: ray start --head, or look whether that one still runs",
    )


def wants_token(address: str, why: str = "") -> InputError:
    """The error for a cluster that asks for a token which is not here, or is another one."""
    return InputError(
        f"the Ray cluster at {address} asks for a token{f' ({why})' if why else ', and there is none here'}",
        where="run.address",
        expected="the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN",
        remedy="copy the token from the head node: `ray get-auth-token` of tuner's environment prints it there",
    )
