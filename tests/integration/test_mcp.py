"""An agent runs a search: it starts one, looks at it, adds a trial and ends it, by the SDK's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuner.mcp.test_server import driven
from tuner import open_run

pytestmark = pytest.mark.slow

EXPERIMENT = {
    "train": {"pace": 0.5},
    "search": {
        "num_trials": 40,
        "space": {"parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True}}},
    },
    "resources": {"cpus_per_trial": 0.5},
    "run": {"program": "tests.programs.toy:Toy"},
}


def test_an_agent_runs_a_search(tmp_path: Path) -> None:
    import anyio

    async def work(client: Any) -> int:
        started = (await client.call_tool("search", {"experiment": EXPERIMENT, "name": "first"})).structured_content
        assert started["name"] == "first" and started["state"] in ("starting", "running"), started
        status: dict[str, Any] = {"trials": 0}
        while not status["trials"]:
            await anyio.sleep(0.5)
            answer = await client.call_tool("status", {"name": "first"})
            status = status if answer.is_error else answer.structured_content
        assert status["active"] and status["num_trials"] == 40
        added = await client.call_tool("add", {"name": "first", "params": {"learning_rate": 0.01}})
        assert not added.is_error, added.content[0].text
        outside = await client.call_tool("add", {"name": "first", "params": {"learning_rate": 7.0}})
        assert outside.is_error and "is outside the space" in outside.content[0].text
        trial = await client.call_tool("stop", {"name": "first", "trial": 0})
        assert not trial.is_error, trial.content[0].text
        whole = await client.call_tool("stop", {"name": "first"})
        assert not whole.is_error, whole.content[0].text
        while (status := (await client.call_tool("status", {"name": "first"})).structured_content)["active"]:
            await anyio.sleep(0.5)
        return status["trials"]

    trials = driven(work, tmp_path, "--allow-write", "--allow-module", "tests")
    record = open_run("first", tmp_path / "runs").record()
    assert record.outcome == "stopped" and len(record.trials) == trials < 40
    assert record.trials[0].reason is not None and str(record.trials[0].reason) == "user"


def test_a_search_outlives_the_server(tmp_path: Path) -> None:
    import anyio

    async def work(client: Any) -> Any:
        more = {**EXPERIMENT, "search": {**EXPERIMENT["search"], "num_trials": 4}}  # type: ignore[dict-item]
        return (await client.call_tool("search", {"experiment": more, "name": "first"})).structured_content

    started = driven(work, tmp_path, "--allow-write", "--allow-module", "tests")

    async def ended() -> None:
        with anyio.fail_after(120):
            while not open_run("first", tmp_path / "runs").record().finished:
                await anyio.sleep(0.5)

    anyio.run(ended)
    assert len(open_run("first", tmp_path / "runs").record().trials) == 4
    assert "search first: 4 trials" in Path(started["log"]).read_text()
