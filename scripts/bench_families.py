"""Trains an adapter on a tiny random model of each family that transformers has, by the defaults, and writes a table.

    python scripts/bench_families.py --workers 8             # all families; writes docs/families.md
    python scripts/bench_families.py --only gemma2,qwen3_vl  # prints the table of these
    python scripts/bench_families.py --json rows.json        # keeps the rows there too; families already there are kept
    python scripts/bench_families.py --table rows.json       # trains nothing: writes the document from kept rows

`family_trials.py` has what is trained and compared, `tiny_families.py` the models.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from family_trials import Row, line_of, tried  # noqa: E402  beside this file
from tiny_families import FAMILIES, built  # noqa: E402

LIMIT = 900
"""Seconds that a family may take in a process of its own."""


@dataclass
class Found:
    """What was found of some families."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By family."""
    left_out: dict[str, str] = field(default_factory=dict)
    """By family of which no small model can be made: why."""

    def add(self, other: Found) -> None:
        """Takes over what another has; of families that both have, the other's."""
        for family in [*other.rows, *other.left_out]:
            self.rows.pop(family, None)
            self.left_out.pop(family, None)
        self.rows |= other.rows
        self.left_out |= other.left_out

    def write(self, file: Path) -> None:
        """Writes it as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Found:
        """Reads what `write` has written."""
        said = json.loads(file.read_text(encoding="utf-8"))
        return cls({family: Row(**row) for family, row in said["rows"].items()}, said["left_out"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="families, with commas; the table is printed and not written")
    parser.add_argument("--workers", type=int, default=1, help="families at a time, each in a process of one thread")
    parser.add_argument("--json", type=Path, help="the file that keeps the rows, with those of earlier calls")
    parser.add_argument("--table", type=Path, help="makes the table of the rows in this file, and trains nothing")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "families.md", help="the document")
    args = parser.parse_args()
    found = Found.read(args.table) if args.table else _all(args.only, args.workers, args.json)
    text = document(found)
    if args.only and not args.table:
        print(text)
    else:
        args.to.write_text(text, encoding="utf-8")
    sys.exit(1 if any(row.fails for row in found.rows.values()) else 0)


def _all(only: str, workers: int, kept: Path | None) -> Found:
    """Tries families, `workers` at a time. kept: the file with the rows, which is written after each family."""
    families = only.split(",") if only else list(FAMILIES)
    found = Found.read(kept) if kept is not None and kept.is_file() else Found()
    for one, seconds in _each(families, workers):
        found.add(one)
        if kept is not None:
            found.write(kept)
        for family, why in one.left_out.items():
            print(f"{family}: left out, no small model of it: {why}", file=sys.stderr, flush=True)
        for family, row in one.rows.items():
            told = "; ".join(row.fails) or "as it should be"
            print(f"{family}: {told} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return found


def _each(families: list[str], workers: int) -> Iterator[tuple[Found, float]]:
    """What is found of each family, and the seconds that it took."""
    if workers == 1:
        for family in families:
            began = time.monotonic()
            yield _one(family), time.monotonic() - began
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_elsewhere, families)


def _one(family: str) -> Found:
    """Tries a family in this process."""
    with tempfile.TemporaryDirectory(prefix="tuner-family-") as place:
        folder = Path(place)
        try:
            built(family, folder / "base")
        except Exception as error:
            return Found(left_out={family: line_of(error)})
        row = tried(family, folder)
        row.versions = _versions()
        return Found({family: row})


def _elsewhere(family: str) -> tuple[Found, float]:
    """Tries a family in a process of its own, so that one that ends it takes no other with it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tuner-family-") as place:
        file = Path(place) / "row.json"
        command = [sys.executable, __file__, "--only", family, "--json", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
            what = f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"
        except subprocess.TimeoutExpired:
            what = f"takes more than {LIMIT} s"
        found = Found.read(file) if file.is_file() else Found({family: Row(family, solo=f"fails: {what}"[:160])})
    return found, time.monotonic() - began


def _versions() -> str:
    import peft
    import torch
    import transformers
    import trl

    return ", ".join(f"{library.__name__} {library.__version__}" for library in (torch, transformers, trl, peft))


def document(found: Found) -> str:
    """The document, in Markdown."""
    rows = [found.rows[family] for family in _ordered(found.rows)]
    versions = " and ".join(dict.fromkeys(row.versions for row in rows if row.versions))
    head = f"""# Families of models

A tiny random model of each family, trained by the defaults on rows of text: made by
`python scripts/bench_families.py` with
{versions}.

{_summary(rows)}

- **plain TRL, all-linear**: whether an SFTTrainer with `target_modules="all-linear"` trains, else its error.
- **solo**: the largest difference of a trial's validation losses to those of a plain SFTTrainer over the same rows,
  with an adapter on the same layers. *refused*: the reason why no trial of this base begins.
- **packed**: the largest difference to the trial alone, or why trials of this family do not share a base. *rounding*:
  the largest difference of the trial alone to itself in micro-batches of half the size, where packed is above 1e-05.
- **adapter on**: the parts that have one by `target_modules: all-linear`. Every group of layers in them learns.
- **names**: *the class's*: plain PEFT loads each tensor of the adapter over the class that the checkpoint's config
  names, and each adapted layer is a module of that class. *(file: …)*: the checkpoint's files have another name for
  the layer, which transformers maps when it loads them.
- **merge**: tensors of the checkpoint that `export --merge` writes.

| family | class | attention | plain TRL, all-linear | solo | packed | adapter on | names | merge |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
    lines = ["| " + " | ".join(cell.replace("|", "/") or "–" for cell in row.cells) + " |" for row in rows]
    left_out = [f"- {family}: {found.left_out[family].replace('|', '/')}" for family in _ordered(found.left_out)]
    tail = ["", "No small model could be made of these:", "", *left_out] if left_out else []
    return head + "\n".join([*lines, *tail]) + "\n"


def _summary(rows: list[Row]) -> str:
    """How many families come out how, in sentences."""
    trained = [row for row in rows if row.solo[:1].isdigit()]
    refused = [row for row in rows if row.solo.startswith("refused")]
    told = [
        f"Of {len(rows)} families, {len(trained)} train, and "
        f"{sum(row.solo == '0' for row in trained)} of these have the losses of a plain SFTTrainer to the last digit.",
        f"In {sum(row.trl != 'trains' for row in trained)} of them a plain SFTTrainer fails with all-linear.",
        f"Trials of {sum(row.packed[:1].isdigit() for row in trained)} share a base.",
        f"{len(refused)} {'is' if len(refused) == 1 else 'are'} refused.",
        f"{len(rows) - len(trained) - len(refused)} fail, as they do with a plain SFTTrainer.",
    ]
    wrong = [row.family for row in rows if row.fails]
    told += [f"Not as they should be: {', '.join(wrong)}."] if wrong else []
    return "\n".join(told)


def _ordered(families: Iterable[str]) -> list[str]:
    """The families in the order in which they are tried."""
    places: dict[str, Any] = {family: place for place, family in enumerate(FAMILIES)}
    return sorted(families, key=lambda family: (places.get(family, len(places)), family))


if __name__ == "__main__":
    import warnings

    from trainables import quiet

    quiet.before_imports()
    warnings.simplefilter("ignore")
    main()
