"""Reads an asynchronous stream of text as lines, and leaves nothing behind where the reader is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator


def lines_of(chunks: Callable[[], AsyncGenerator[str, None]]) -> Iterator[str]:
    """The complete lines of an asynchronous generator of pieces of text. Text after the last newline is dropped."""
    loop = asyncio.new_event_loop()
    held = ""
    pieces = chunks()
    try:
        while True:
            try:
                held += loop.run_until_complete(pieces.__anext__())
            except StopAsyncIteration:
                break
            *lines, held = held.split("\n")
            yield from lines
    finally:
        loop.run_until_complete(_close(pieces))
        loop.close()


async def _close(pieces: AsyncGenerator[str, None]) -> None:
    """Closes the generator and ends what is left in this loop: Ctrl-C leaves a task that waits for the connection, and
    Python complains of a task or a generator that is dropped unfinished."""
    await _cancel_others()  # a generator whose task still runs cannot be closed
    await pieces.aclose()
    await _cancel_others()


async def _cancel_others() -> None:
    """Cancels the other tasks of this loop, and waits for their end."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
