"""The server of the Model Context Protocol, by the official SDK, on standard input and output."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from tuner import __version__
from tuner.contract import InputError
from tuner.mcp.tools import Place, Tool, chosen, offered
from tuner.redaction import redact
from tuner.report.machine import dump

INSTRUCTIONS = (
    "tuner searches LoRA and QLoRA hyperparameters: a search runs many short fine-tunings (trials) and keeps the best "
    "adapter. Call plan before search: it checks the settings, the rows and the memory. A search runs in the "
    "background; status says how it stands. Trial 0 is the recipe, the settings as given. A lower loss is better."
)


def serve(place: Place, *, writes: bool) -> None:
    """Serves until standard input ends. writes: whether tools that start, stop or add are offered."""
    anyio.run(_serve, place, writes)


async def _serve(place: Place, writes: bool) -> None:
    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in offered(writes=writes).values()])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        def run() -> str:
            return dump(chosen(params.name, writes=writes).call(params.arguments or {}, place))

        try:
            answer = await anyio.to_thread.run_sync(run)
        except InputError as error:
            return types.CallToolResult(content=[_text(redact(str(error)))], is_error=True)
        return types.CallToolResult(content=[_text(answer)], structured_content=_parsed(answer))

    server: Server[Any] = Server(
        "tuner", version=__version__, instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _described(tool: Tool) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=not tool.writes, destructive_hint=tool.destroys, idempotent_hint=not tool.writes,
        open_world_hint=False,
    )  # fmt: skip
    return types.Tool(name=tool.name, description=tool.description, input_schema=tool.schema(), annotations=hints)


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _parsed(answer: str) -> Any:
    """The answer as strict JSON: NaN has become null in it."""
    import json

    return json.loads(answer)
