"""A terminal's screen: what a person sees after bytes were written to it and the window was resized."""

from __future__ import annotations

import re

_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Screen:
    """Rows of cells, and a cursor. wraps: rows are wrapped when the window gets narrower; else they are cut."""

    def __init__(self, width: int, height: int, wraps: bool = True) -> None:
        self.width, self.height, self._wraps = width, height, wraps
        self._rows = [""]
        self._x = self._y = 0

    def write(self, text: str) -> None:
        end = 0
        for found in _CODE.finditer(text):
            assert found.start() == end, f"not understood: {text[end : found.start()]!r}"
            end = found.end()
            number, code, back, down, letter = found.groups()
            if code:
                self._control(number, code)
            elif back:
                self._x = 0
            elif down:
                self._x, self._y = 0, self._y + 1  # the terminal's driver adds a carriage return
                self._rows += [""] * (self._y + 1 - len(self._rows))
            else:
                assert letter and self._x < self.width, "a row was too wide for the terminal"
                row = self._rows[self._y].ljust(self._x)
                self._rows[self._y] = row[: self._x] + letter + row[self._x + 1 :]
                self._x += 1
        self._scroll()

    def resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        if self._wraps:
            rows: list[str] = []
            for number, row in enumerate(self._rows):
                parts = [row[at : at + width] for at in range(0, max(1, len(row)), width)]
                rows += parts
                if number == self._y:
                    self._y, self._x = len(rows) - 1, len(parts[-1])
            self._rows = rows
        else:
            self._rows = [row[:width] for row in self._rows]
        self._scroll()

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self._rows).strip("\n")

    def _control(self, number: str, code: str) -> None:
        if code == "A":
            self._y = max(0, self._y - int(number or 1))
        elif code == "K":
            assert number == "2"
            self._rows[self._y] = ""
        else:
            assert code in "mhl", f"not understood: {number}{code}"

    def _scroll(self) -> None:
        gone = max(0, len(self._rows) - self.height)
        del self._rows[:gone]
        self._y = max(0, self._y - gone)
