"""Reads addresses of Ray clusters in every form that Ray knows, and has them reached past any proxy."""

from __future__ import annotations

import os
import re

from tuner.contract import InputError

ENVIRONMENT = "RAY_ADDRESS"
"""The environment variable that Ray reads."""
AUTO = "auto"
"""The address of whichever cluster runs on this machine."""
_HERE = ("", "local")
_PLACE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_THE_CLOUD = ("169.254.169.254", "metadata.google.internal")
"""Metadata servers of clouds, which Ray's dashboard asks about the machine when it starts."""


def joins(address: str | None) -> str | None:
    """The cluster that a search joins, `auto` or host:port; None where it starts Ray on this machine.

    address: that of `run.address`; where it is empty, RAY_ADDRESS counts. Raises InputError for what is no address of a
    cluster.
    """
    where, given = (
        ("run.address", address) if address and address.strip() else (ENVIRONMENT, os.environ.get(ENVIRONMENT))
    )
    found = (given or "").strip()
    if found in _HERE:
        return None
    if found != AUTO:
        _check(found, where)
    return found


def place(address: str) -> tuple[str, int]:
    """Splits host:port or [IPv6]:port into host (without brackets) and port. Raises ValueError for anything else."""
    found = _PLACE.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{address!r} is not host:port")
    return found["v6"] or found["host"], int(found["port"])


def _check(address: str, where: str) -> None:
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "ray":
        raise InputError(
            f"{address}: a search does not run through a Ray client",
            where=where,
            expected="host:port of the cluster's head (ray start prints it), on a machine of the cluster",
            remedy=f"from elsewhere: python -m tuner submit --address http://{rest.partition(':')[0]}:8265",
        )
    if separator and scheme in ("http", "https"):
        raise InputError(
            f"{address} is the address of a dashboard",
            where=where,
            expected="host:port of the cluster's head, such as 10.0.0.1:6379",
            remedy=f"python -m tuner submit --address {address} sends the search there",
        )
    try:
        place(address)
    except ValueError:
        raise InputError(
            f"{address!r} is no address of a Ray cluster",
            where=where,
            expected="host:port (10.0.0.1:6379, [::1]:6379), auto, or local for this machine",
            remedy="ray status, on a machine of the cluster, tells its address",
        ) from None


def go_past_proxies(*hosts: str) -> None:
    """Has this process and those that it starts reach this machine, its cloud's metadata and `hosts` without a proxy.

    A proxy knows none of them: a request through one fails, or the proxy itself answers.
    """
    for name in ("no_proxy", "NO_PROXY", *(["no_grpc_proxy"] if "no_grpc_proxy" in os.environ else [])):
        given = os.environ.get(name) or os.environ.get(name.swapcase(), "")
        listed = [part.strip() for part in given.split(",") if part.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join(dict.fromkeys([*listed, *_LOOPBACK, *_OF_THE_CLOUD, *hosts]))
