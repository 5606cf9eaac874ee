"""The server as an agent meets it: by the SDK's own client, over the standard streams of a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import finished_run
from tuner.cli import run

pytest.importorskip("mcp")

ROOT = Path(__file__).resolve().parents[3]


def driven(work: Callable[[Any], Awaitable[Any]], folder: Path, *options: str) -> Any:
    """What `work` returns, which gets a client of a server that was started in `folder`."""
    import anyio
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters

    async def connected() -> Any:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "tuner", "mcp", *options], env=environment, cwd=folder
        )
        async with Client(server) as client:
            return await work(client)

    return anyio.run(connected)


def test_an_agent_reads(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs")

    async def work(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == ["plan", "status", "show"] and "Call plan before search" in client.instructions
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        assert "train" in tools["plan"].input_schema["properties"]["experiment"]["properties"]
        planned = await client.call_tool("plan", {"experiment": {"search": {"num_trials": 3}}})
        assert not planned.is_error and planned.structured_content["experiment"]["search"]["num_trials"] == 3
        assert planned.structured_content["data"]["sets"], "the rows of the embedded example are here"
        status = await client.call_tool("status", {"name": "first"})
        assert status.structured_content["best"]["trial"] == 1
        assert json.loads(status.content[0].text) == status.structured_content
        shown = await client.call_tool("show", {"name": "first", "trial": 5})
        assert shown.structured_content["eval_loss"] is None, "NaN is no JSON"
        wrong = await client.call_tool("status", {"name": "frist"})
        assert wrong.is_error and "there is no run 'frist'" in wrong.content[0].text
        refused = await client.call_tool("search", {})
        assert refused.is_error and "tuner mcp --allow-write" in refused.content[0].text
        assert (await client.call_tool("status", {})).structured_content["runs"][0]["state"] == "done"

    driven(work, tmp_path)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


def test_what_writes_is_offered_if_it_was_allowed(tmp_path: Path) -> None:
    finished_run(tmp_path / "elsewhere")

    async def work(client: Any) -> None:
        tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
        assert [name for name in tools if not tools[name].read_only_hint] == ["search", "stop", "add"]
        assert [name for name in tools if tools[name].destructive_hint] == ["stop"]
        stopped = await client.call_tool("stop", {"name": "first"})
        assert stopped.is_error and "no driver runs the search 'first'" in stopped.content[0].text

    driven(work, tmp_path, "--allow-write", "--storage-path", str(tmp_path / "elsewhere"))


def test_it_ends_with_its_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "mcp"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=b"", capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_the_sdk_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)  # as where it is not installed
    assert run(["mcp"]) == 2
    assert "python -m pip install 'tuner[mcp]'" in capsys.readouterr().err
