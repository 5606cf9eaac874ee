"""Judges the facts about machines: green, amber or red, each with its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tuner.cluster.probe import PACKAGES

HERE = "this machine"
"""`Finding.where` of the machine that the command runs on."""
LITTLE_BYTES = 10 * 2**30
"""Less free space is amber: an adapter, a tokenized data set or a spilled object may be larger."""
LEAST_BYTES = 2**30
"""Less free space is red."""


class Level(StrEnum):
    """Green: it works. Amber: it works with a drawback. Red: it does not work."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`."""

    where: str
    """The machine, in words."""
    what: str
    """The subject, in one or two words."""
    level: Level
    """How good it is."""
    text: str
    """What was found."""
    remedy: str = ""
    """What the user can do; empty if nothing is wrong."""

    def to_dict(self) -> dict[str, str]:
        """The fields, for JSON."""
        return {
            "where": self.where,
            "what": self.what,
            "level": str(self.level),
            "text": self.text,
            "remedy": self.remedy,
        }


def worst(findings: list[Finding]) -> Level:
    """The worst level; green without any finding."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.RED, Level.AMBER) if level in levels), Level.GREEN)


def judge(
    where: str, facts: Mapping[str, Any], requirements: list[str], driver: Mapping[str, Any] | None = None
) -> Iterator[Finding]:
    """Judges the facts of one machine, from `probe`.

    where: the machine, in words. requirements: tuner's, as in its metadata. driver: for a node, the facts of the
    driver's machine, with which its Python, libraries and packages have to agree.
    """
    yield _python(where, facts, driver)
    yield _libraries(where, facts, requirements, driver)
    yield from _packages(where, facts, driver)
    yield _gpu(where, facts)
    if facts["torch"] is not None:
        yield from _torch(where, facts)
    yield from _disk(where, facts)
    yield from _ports(where, facts)


def _python(where: str, facts: Mapping[str, Any], driver: Mapping[str, Any] | None) -> Finding:
    told = f"{facts['python']} ({facts['executable']})"
    if driver and _minor(facts["python"]) != _minor(driver["python"]):
        text = f"{told}, and the driver has {driver['python']}"
        return Finding(where, "python", Level.RED, text, "one version of Python on all nodes: Ray pickles between them")
    return Finding(where, "python", Level.GREEN, told)


def _libraries(
    where: str, facts: Mapping[str, Any], requirements: list[str], driver: Mapping[str, Any] | None
) -> Finding:
    """Compares the installed versions with tuner's ranges, and a node's with the driver's."""
    from packaging.requirements import Requirement

    found: Mapping[str, str | None] = facts["libraries"]
    missing = [name for name, version in found.items() if version is None]
    if missing:
        text = f"{', '.join(missing)} not installed"
        return Finding(where, "libraries", Level.RED, text, "install tuner's requirements on this machine")
    ranges = {r.name: r.specifier for r in map(Requirement, requirements) if not (r.marker and not r.marker.evaluate())}
    outside = [
        f"{name} {version} (needs {ranges[name]})"
        for name, version in found.items()
        if version and name in ranges and not ranges[name].contains(version, prereleases=True)
    ]
    if outside:
        return Finding(where, "libraries", Level.RED, ", ".join(outside), "install versions inside these ranges")
    if driver:
        other = [f"{n} {v}, driver {driver['libraries'][n]}" for n, v in found.items() if v != driver["libraries"][n]]
        if other:
            # Processes of two Ray versions do not work together; other versions only change results.
            level = Level.RED if any(text.startswith("ray ") for text in other) else Level.AMBER
            return Finding(where, "libraries", level, "; ".join(other), "the same versions on all nodes")
    return Finding(where, "libraries", Level.GREEN, ", ".join(f"{n} {v}" for n, v in found.items()))


def _packages(where: str, facts: Mapping[str, Any], driver: Mapping[str, Any] | None) -> Iterator[Finding]:
    for name in PACKAGES:
        found = facts["packages"][name]
        if found is None:
            remedy = "install tuner there, or send it along: python -m tuner submit"
            yield Finding(where, name, Level.RED, "not to be imported", remedy)
            continue
        told = f"{found['version'] + ', ' if found['version'] else ''}code {found['digest']}, from {found['origin']}"
        theirs = driver["packages"][name] if driver else found
        if theirs and theirs["digest"] != found["digest"]:
            text = f"{told}; the driver has other code ({theirs['digest']})"
            yield Finding(
                where, name, Level.RED, text, "install one version everywhere, or use: python -m tuner submit"
            )
        elif ":" in found["version"]:
            yield Finding(where, name, Level.RED, f"cannot be imported ({found['version']})", "install it anew")
        else:
            yield Finding(where, name, Level.GREEN, told)


def _gpu(where: str, facts: Mapping[str, Any]) -> Finding:
    gpus = facts["gpus"]
    if not gpus:
        unknown = facts.get("unknown", {}).get("gpus")
        seen = (facts["torch"] or {}).get("devices")
        if seen:  # what trains sees them
            return Finding(
                where, "gpu", Level.GREEN, f"{len(seen)} × {'; '.join(sorted(set(seen)))}, as torch sees them"
            )
        if unknown:
            text = f"it could not be found out whether there is one: {unknown}"
            return Finding(where, "gpu", Level.AMBER, text, "run nvidia-smi there, and mend the driver")
        return Finding(where, "gpu", Level.AMBER, "none: trials run on the CPU", "a GPU, for a base of any size")
    names = {f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in gpus}
    return Finding(where, "gpu", Level.GREEN, f"{len(gpus)} × {'; '.join(sorted(names))}")


def _torch(where: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    told = facts["torch"]
    if "error" in told:
        yield Finding(where, "torch", Level.RED, f"does not start: {told['error']}", "install torch anew")
        return
    if facts["gpus"] and not told["available"]:
        text = f"sees none of the {len(facts['gpus'])} GPUs (built for {told['cuda'] or 'the CPU'})"
        yield Finding(where, "torch", Level.RED, text, "install a CUDA build of torch that this driver can run")
    else:
        yield Finding(where, "torch", Level.GREEN, f"CUDA {told['cuda']}" if told["cuda"] else "for the CPU")
    if "nf4_error" in told:
        remedy = "install bitsandbytes for this torch, or search without quantization: nf4"
        yield Finding(where, "bitsandbytes", Level.RED, f"cannot quantize: {told['nf4_error']}", remedy)
    else:
        yield Finding(where, "bitsandbytes", Level.GREEN, f"quantizes to NF4 on {told['nf4']}")


def _disk(where: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    for place, free in facts["free"].items():
        if free is None:
            yield Finding(where, "disk", Level.RED, f"{place} cannot be looked at", "make it readable")
            continue
        told = f"{free / 2**30:,.1f} GiB free for {place}"
        level = Level.GREEN if free >= LITTLE_BYTES else Level.AMBER if free >= LEAST_BYTES else Level.RED
        if place == "/dev/shm" and free >= LEAST_BYTES:  # noqa: S108  Ray's shared memory: little of it is used here
            level = Level.GREEN
        yield Finding(where, "disk", level, told, "" if level is Level.GREEN else "make room")


def _ports(where: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Judges Ray's ports that other machines reach. Without a token, whoever reaches them can run code."""
    found = facts["listening"]
    if unknown := facts.get("unknown", {}).get("listening"):
        text = f"not all of Ray's ports could be looked at: {unknown}"
        yield Finding(where, "ports", Level.AMBER, text, "ask as the user that Ray runs as")
        if not found:
            return
    if not found:
        yield Finding(where, "ports", Level.GREEN, "Ray listens on none that other machines reach")
        return
    told = ", ".join(f"{entry['program']} {entry['port']}" for entry in found[:8])
    told += f" and {len(found) - 8} more" if len(found) > 8 else ""
    dashboard = any(entry["program"] == "dashboard" for entry in found)
    level = Level.AMBER if dashboard else Level.GREEN
    remedy = "--dashboard-host 127.0.0.1, and ssh -L to reach it" if dashboard else ""
    yield Finding(where, "ports", level, f"reached from other machines: {told}", remedy)


def _minor(version: str) -> str:
    """The major and minor version: "3.12" of "3.12.1"."""
    return ".".join(re.split(r"[.+]", version)[:2])
