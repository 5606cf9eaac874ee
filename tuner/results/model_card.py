"""The README of `best/`: what the adapter is, how it was found, and how to check its loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.contract import Objective
from tuner.redaction import redact
from tuner.results.records import Point, SearchRecord, TrialRecord


def model_card(name: str, record: SearchRecord, winner: TrialRecord, resolved: Mapping[str, Any]) -> str:
    """A model card in Markdown with the metadata block that the Hugging Face hub reads."""
    base = str(resolved.get("model", {}).get("model_name_or_path", "unknown"))
    revision = resolved.get("model", {}).get("model_revision")
    quantization = resolved.get("model", {}).get("quantization", {}).get("kind", "none")
    trusted = bool(resolved.get("model", {}).get("trust_remote_code"))
    best = winner.best
    assert best is not None
    counts = ", ".join(f"{n} {what}" for what, n in record.counts["reason"].items())
    about = resolved.get("about", {})
    versions = ", ".join(f"{package} {version}" for package, version in about.get("versions", {}).items())
    recipe = record.recipe.best_value if record.recipe else None
    objectives = record.objectives
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {json.dumps(base)}",
        "tags: [lora, tuner]",
        "---",
        "",
        f"# {name}: trial {winner.number}",
        "",
        f"A LoRA adapter for `{base}`{f' at `{revision}`' if revision else ''}"
        f"{' (NF4)' if quantization == 'nf4' else ''}, "
        f"the best of {record.num_ended} trials.",
        "",
        f"- {record.objective.title} **{best.value:.6f}** at step {best.step} of {winner.max_steps}",
        *[f"- {o.title} at that step: {v:.6f}" for o in objectives[1:] if (v := best.metrics.get(o.name)) is not None],
        *([f"- the recipe's default hyperparameters reached {recipe:.6f}"] if recipe is not None else []),
        f"- trainable parameters: {winner.setup.get('share', winner.setup.get('trainable_parameters', 'unknown'))}",
        f"- endings: {counts}",
        f"- training tokens of the whole search: {record.tokens:,}",
        *(["- **the base runs code of its own** (`trust_remote_code`)"] if trusted else []),
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
        "",
        "The validation loss is SFTTrainer's `eval_loss`: the mean over batches of "
        f"{resolved.get('train', {}).get('per_device_eval_batch_size', '?')} rows, in file order, of the mean "
        "cross-entropy over the label tokens of each batch.",
        "",
        "## Use",
        "",
        "```python",
        "from peft import AutoPeftModelForCausalLM",
        "",
        'model = AutoPeftModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")',
        "```",
        "",
        f"Made with {versions}." if versions else "",
    ]
    return redact("\n".join(lines).rstrip() + "\n")


def _cells(point: Point, objectives: Sequence[Objective]) -> str:
    """What an evaluation measured, as cells of a table."""
    values = (point.metrics.get(objective.name) for objective in objectives)
    return " | ".join("-" if value is None else f"{value:.4f}" for value in values)
