"""Writes the README of `best/`: what the adapter is, how it was found, and how to check its loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.contract import Card, Objective
from tuner.redaction import redact
from tuner.results.records import Point, SearchRecord, TrialRecord


def model_card(name: str, record: SearchRecord, winner: TrialRecord, resolved: Mapping[str, Any], card: Card) -> str:
    """A model card in Markdown, with the metadata block that the Hugging Face hub reads.

    name: of the search. resolved: its settings. card: what the program says of the adapter. The winner must have a
    finite value.
    """
    best = winner.best
    assert best is not None
    counts = ", ".join(f"{n} {what}" for what, n in record.counts["reason"].items())
    about = resolved.get("about", {})
    versions = ", ".join(f"{package} {version}" for package, version in about.get("versions", {}).items())
    recipe = record.recipe.best_value if record.recipe else None
    objectives = record.objectives
    lines = [
        "---",
        *([f"library_name: {card.library}"] if card.library else []),
        *([f"base_model: {json.dumps(card.base)}"] if card.base else []),
        f"tags: [{', '.join((*card.tags, 'tuner'))}]",
        "---",
        "",
        f"# {name}: trial {winner.number}",
        "",
        f"{card.what}, the best of {record.num_ended} trials.",
        "",
        f"- {record.objective.title} **{winner.best_value:.6f}** at step {best.step} of {winner.max_steps}",
        *[f"- {o.title} at that step: {v:.6f}" for o in objectives[1:] if (v := best.metrics.get(o.name)) is not None],
        *([f"- the recipe's default hyperparameters reached {recipe:.6f}"] if recipe is not None else []),
        *[f"- {fact}" for fact in card.facts],
        f"- endings: {counts}",
        f"- training tokens of the whole search: {record.tokens:,}",
        "",
        "## Hyperparameters",
        "",
        "| parameter | value |",
        "| --- | --- |",
        *[f"| {key} | {value} |" for key, value in winner.params.items()],
        "",
        "`train.yaml` holds every other setting, and trains this adapter again.",
        "",
        f"## {record.objective.noun.capitalize()}",
        "",
        f"| step | tokens | {' | '.join(objective.title for objective in objectives)} |",
        f"| ---: | ---: |{' ---: |' * len(objectives)}",
        *[f"| {p.step} | {p.tokens:,} | {_cells(p, objectives)} |" for p in winner.points if p.value is not None],
        *(["", card.measured] if card.measured else []),
        *(["", "## Use", "", "```python", card.usage, "```"] if card.usage else []),
        "",
        f"Made with {versions}." if versions else "",
    ]
    return redact("\n".join(lines).rstrip() + "\n")


def _cells(point: Point, objectives: Sequence[Objective]) -> str:
    """The objectives' values of an evaluation, as cells of a Markdown table."""
    values = (point.metrics.get(objective.name) for objective in objectives)
    return " | ".join("-" if value is None else f"{value:.4f}" for value in values)
