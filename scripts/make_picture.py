"""Draws the live view of a recorded search as an SVG, for the README.

    python scripts/make_picture.py runs/first docs/live.svg --at 0.6

--at is the share of the recorded events that the picture is drawn after: 0.6 shows a search at work, 1.0 its end.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from tuner.cli.output import labels_of_run
from tuner.report.lines import to_rich
from tuner.report.live import frame
from tuner.results.folder import RunFolder
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord


def picture(run: Path, at: float, width: int, height: int) -> str:
    """The SVG text of a run's live view after the first `at` of its events."""
    from rich.console import Console

    folder = RunFolder(run)
    events = list(read_ledger(folder.ledger))
    if not events:
        raise SystemExit(f"{folder.ledger} holds no events")
    record = SearchRecord.fold(events[: max(1, round(at * len(events)))])
    lines = frame(record, width, height, elapsed=record.wall_s, labels=labels_of_run(folder))
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(to_rich(lines))
    svg = console.export_svg(title=f"python -m tuner search --name {record.name}", unique_id="tuner")
    # Fonts of the reader's own machine: a picture that loads a font from the network is blank where that is blocked.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("svg", type=Path, help="the file to write")
    parser.add_argument("--at", type=float, default=0.6, help="share of the events (default 0.6)")
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--height", type=int, default=24)
    options = parser.parse_args()
    svg = picture(options.run, options.at, options.width, options.height)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    options.svg.write_text(svg, encoding="utf-8")
    print(f"{options.svg}: {len(svg) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
