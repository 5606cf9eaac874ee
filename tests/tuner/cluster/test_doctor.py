"""The doctor on this machine as it is, and on one that is broken in several ways; and how it judges facts."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.programs.answering import answering
from tests.tuner.report import golden
from tuner.answers import No, Unknown, Yes
from tuner.cluster.doctor import _asks, requirements
from tuner.cluster.findings import Finding, Level, judge, worst
from tuner.cluster.probe import _gpus, _is_loopback, gpu_bytes

ROOT = Path(__file__).resolve().parents[3]


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuner", "doctor", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, str]]]:
    """Findings by subject."""
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(finding["what"], []).append(finding)
    return found


def test_a_healthy_machine(tmp_path: Path) -> None:
    done = doctor("--json", "--storage-path", str(tmp_path), HF_HUB_OFFLINE="1", PYTHONPATH=str(ROOT))
    found = told(done)
    assert done.returncode == 0, done.stdout
    assert not [f for group in found.values() for f in group if f["level"] == "red"]
    for subject in ("python", "libraries", "tuner", "trainables", "search_spaces", "torch", "bitsandbytes", "storage"):
        assert [f["level"] for f in found[subject]] == ["green"], found[subject]
    assert found["tuner"][0]["text"].endswith(f"from {ROOT / 'tuner'}")
    assert "hub" in found and "disk" in found and "ports" in found and "gpu" in found


def test_a_broken_machine(tmp_path: Path) -> None:
    """A bitsandbytes that does not load, storage in a file's place, a token for everybody, a hub that is away."""
    (tmp_path / "path" / "bitsandbytes").mkdir(parents=True)
    (tmp_path / "path" / "bitsandbytes" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open')\n")
    (tmp_path / "file").write_text("")
    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(0o644)
    done = doctor(
        "--json", "--storage-path", str(tmp_path / "file" / "runs"), PYTHONPATH=f"{tmp_path / 'path'}:{ROOT}",
        RAY_AUTH_TOKEN_PATH=str(token), HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="",
    )  # fmt: skip
    found = told(done)
    assert done.returncode == 1 and json.loads(done.stdout)["level"] == "red"
    assert "libcudart.so.13" in found["bitsandbytes"][0]["text"] and found["bitsandbytes"][0]["level"] == "red"
    assert found["storage"][0]["level"] == "red" and "cannot be written" in found["storage"][0]["text"]
    assert found["ray token"][0]["level"] == "amber" and found["ray token"][0]["remedy"] == f"chmod 600 {token}"
    assert found["hub"][0]["level"] == "amber" and "does not answer" in found["hub"][0]["text"]
    assert all(f["remedy"] for group in found.values() for f in group if f["level"] != "green")


FACTS: dict[str, Any] = {
    "host": "a", "python": "3.11.9", "executable": "/envs/a/bin/python",
    "libraries": {"torch": "2.13.0", "ray": "2.60.0", "trl": "1.16.0"},
    "packages": {
        name: {"origin": f"/envs/a/{name}", "version": "0.1.0" if name == "tuner" else "", "digest": "abc"}
        for name in ("tuner", "trainables", "search_spaces")
    },
    "gpus": [{"name": "NVIDIA H100", "driver": "580.1", "memory": "81559 MiB"}],
    "torch": {"cuda": "13.0", "available": True, "devices": ["NVIDIA H100"], "nf4": "cuda"},
    "listening": [{"program": "raylet", "port": 40001}],
    "free": {"/shared": 500 * 2**30},
}  # fmt: skip
NEEDS = ["torch<2.14,>=2.11", "ray[default]<3,>=2.60", "trl<2,>=1.16"]


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    change(facts)
    return facts


@pytest.mark.parametrize(
    ("change", "what", "level", "text"),
    [
        (lambda f: None, "gpu", Level.GREEN, "1 × NVIDIA H100, 81559 MiB, driver 580.1"),
        (lambda f: f["libraries"].update(torch=None), "libraries", Level.RED, "torch not installed"),
        (lambda f: f["libraries"].update(torch="2.9.1"), "libraries", Level.RED, "torch 2.9.1 (needs <2.14,>=2.11)"),
        (lambda f: f["libraries"].update(trl="1.17.0"), "libraries", Level.AMBER, "trl 1.17.0, driver 1.16.0"),
        (lambda f: f["libraries"].update(ray="2.61.0"), "libraries", Level.RED, "ray 2.61.0, driver 2.60.0"),
        (lambda f: f.update(python="3.12.1"), "python", Level.RED, "and the driver has 3.11.9"),
        (lambda f: f["packages"].update(trainables=None), "trainables", Level.RED, "not to be imported"),
        (lambda f: f["packages"]["tuner"].update(digest="xyz"), "tuner", Level.RED, "the driver has other code (abc)"),
        (
            lambda f: (f.update(gpus=[]), f["torch"].update(devices=[])),
            "gpu",
            Level.AMBER,
            "none: trials run on the CPU",
        ),
        (
            lambda f: (
                f.update(gpus=[], unknown={"gpus": "nvidia-smi ended with code 9"}),
                f["torch"].update(devices=[]),
            ),
            "gpu",
            Level.AMBER,
            "it could not be found out whether there is one: nvidia-smi ended with code 9",
        ),
        (
            lambda f: f.update(gpus=[], unknown={"gpus": "nvidia-smi timed out"}),
            "gpu",
            Level.GREEN,
            "1 × NVIDIA H100, as torch sees them",
        ),
        (
            lambda f: f.update(listening=[], unknown={"listening": "gcs_server runs as another user"}),
            "ports",
            Level.AMBER,
            "not all of Ray's ports could be looked at: gcs_server runs as another user",
        ),
        (lambda f: f["torch"].update(available=False), "torch", Level.RED, "sees none of the 1 GPUs"),
        (lambda f: f.update(torch={"error": "boom"}), "torch", Level.RED, "does not start: boom"),
        (lambda f: f["torch"].update(nf4_error="no kernel"), "bitsandbytes", Level.RED, "cannot quantize: no kernel"),
        (lambda f: f["free"].update({"/shared": 2**20}), "disk", Level.RED, "0.0 GiB free for /shared"),
        (lambda f: f["free"].update({"/shared": 5 * 2**30}), "disk", Level.AMBER, "5.0 GiB free"),
        (
            lambda f: f.update(listening=[{"program": "dashboard", "port": 8265}]),
            "ports",
            Level.AMBER,
            "dashboard 8265",
        ),
    ],
)
def test_what_a_node_s_facts_mean(change: Callable[[dict[str, Any]], Any], what: str, level: Level, text: str) -> None:
    findings = list(judge("node b", changed(change), NEEDS, FACTS))
    found = next(finding for finding in findings if finding.what == what)
    assert found.level is level and text in found.text, found
    assert worst(findings) is level
    assert level is Level.GREEN or found.remedy


def test_the_exact_words() -> None:
    def lines(findings: list[Finding]) -> str:
        return "".join(f"{f.level:<6} {f.what:<13} {f.text}{' | ' + f.remedy if f.remedy else ''}\n" for f in findings)

    bad = changed(lambda f: (f["packages"].update(tuner=None), f.update(gpus=[], torch=None, python="3.12.1")))
    parts = {"healthy": lines(list(judge("a", FACTS, NEEDS))), "broken": lines(list(judge("b", bad, NEEDS, FACTS)))}
    golden.check("doctor.txt", parts)


def test_requirements_are_tuner_s_own() -> None:
    names = {text.partition("[")[0].split("<")[0].split(">")[0] for text in requirements()}
    assert {"torch", "ray", "trl"} <= names and "pytest" not in names


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("0100007F", True),
        ("00000000", False),
        ("0200000A", False),
        ("00000000000000000000000001000000", True),
        ("0000000000000000FFFF00000100007F", True),
        ("00000000000000000000000000000000", False),
    ],
)
def test_loopback_in_the_kernel_s_tables(address: str, loopback: bool) -> None:
    assert _is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, '{"ray_version": "2.60.0"}', No),
        (401, "", Yes),
        (403, "", Yes),
        (502, "a proxy's page", Unknown),
        (200, "<html>Log in</html>", Unknown),
        (None, "", Unknown),
    ],
)
def test_what_a_dashboard_does_not_say_is_no_answer(status: int | None, body: str, found: type) -> None:
    with answering(status, body) as url:
        assert isinstance(_asks(url), found)


@pytest.mark.parametrize(
    ("script", "gpus", "why"),
    [
        ("echo NVIDIA H100, 580.1, 81559 MiB", 1, ""),
        ("true", 0, ""),
        ("echo no driver to speak to; exit 9", 0, "nvidia-smi ended with code 9: no driver to speak to"),
    ],
)
def test_a_driver_that_fails_is_not_a_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, gpus: int, why: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found, said = _gpus()
    assert (len(found), said) == (gpus, why)
    assert gpu_bytes() == (81559 * 2**20 if gpus else None)
