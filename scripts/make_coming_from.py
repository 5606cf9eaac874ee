"""Writes docs/coming-from.md, the kinds of file that people own, from the table that the tests hold.

python scripts/make_coming_from.py            # writes docs/coming-from.md
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PLACE = ROOT / "docs" / "coming-from.md"
INTRODUCTION = """\
<!-- scripts/make_coming_from.py writes this file from tests/trainables/data/kinds.py. -->
# Coming from Axolotl, LLaMA-Factory, Unsloth or OpenAI files

Files that other tools read, and what is learned from them here. Every line is a test: four rows of the kind are read,
and the first is decoded. What stands between « and » is learned. `\\n` is a line break; `<|end|>`, `<|user|>` and the
like are the tokens of a small chat template. Where a file is refused, the last column is what is learned once the
setting that the message names is set. `python -m tuner data FILE --model MODEL` shows your own file in this way.

| kind of file | known from | settings (`data.`) | what is said | what is learned |
| --- | --- | --- | --- | --- |
"""


def written() -> str:
    """The page."""
    from tests.trainables.data.kinds import KINDS

    def code(text: str) -> str:
        return f"`{text}`".replace("\n", "\\n").replace("|", "\\|") if text else ""

    def cell(text: str) -> str:
        return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")

    lines = []
    for kind in KINDS:
        said = [*([f"refused: {kind.refused}"] if kind.refused else []), *kind.said]
        settings = ", ".join(code(f"{key}: {value}" if len(str(value)) < 80 else f"{key}: …")
                             for key, value in kind.settings.items())  # fmt: skip
        lines.append(
            f"| {cell(kind.name)} | {kind.tools} | {settings} | {cell('; '.join(said))} | {code(kind.learned)} |"
        )
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PLACE.write_text(written(), encoding="utf-8")
