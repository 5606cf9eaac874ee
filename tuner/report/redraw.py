"""rich's live display, for windows that get narrower.

rich goes up as many rows as it has drawn. Most terminals wrap the rows on their screen when the window gets narrower:
then the picture takes more rows than that, and its upper part would stay above the next one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.cells import cell_len
from rich.console import ConsoleRenderable, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text


class Redrawn(Live):
    """A live display of texts, whose rows are cut and not wrapped, that leaves nothing on the screen of a window that
    shrinks."""

    _picture = Text("")
    """What is drawn next."""
    _drawn: tuple[int, ...] = ()
    """The cells of each row that is on the screen."""

    def get_renderable(self) -> RenderableType:
        """The picture, which is noted."""
        picture = super().get_renderable()
        self._picture = picture if isinstance(picture, Text) else Text("")
        return picture

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Puts control codes that erase the rows which rich does not know of before those of rich."""
        width, height = self.console.size
        wrapped = sum(max(0, cells - 1) // max(1, width) for cells in self._drawn) if wraps(os.environ) else 0
        shown = super().process_renderables(renderables)
        self._drawn = tuple(min(width, cell_len(row)) for row in self._picture.plain.split("\n"))[:height]
        if not wrapped or not self.console.is_interactive:
            return shown
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * min(wrapped, height)
        return [Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up), *shown]


def wraps(environ: Mapping[str, str]) -> bool:
    """Whether the terminal wraps the rows on its screen when it gets narrower. xterm, GNU screen and the console of
    Linux cut them off."""
    if environ.get("TMUX"):
        return True
    return not (environ.get("XTERM_VERSION") or environ.get("STY") or environ.get("TERM", "") == "linux")
