"""Measures what single changes do to a step of a trial: the loss, the adapters' dtype, padding, kernels, compiling.

    python scripts/bench_step.py --shape 1.5b --quantization nf4 --batches 2,32 --json
    python scripts/bench_step.py --shape tiny --batches 2 --json      # on a CPU, in a minute

The reference is SFTTrainer's own loss over its own batches, rank-16 adapters on all linear layers, no gradient
checkpointing, AdamW. Every change is made to the reference alone, over the same rows, and undone. All changes take
turns in several rounds; compiling comes last, because it cannot be undone. The learning rate is 0, so that all losses
are over the same weights. The first step of every round does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

ROW = 200
"""Tokens of a row, about."""

Row = dict[str, Any]


@dataclass
class Change:
    """A change to the reference, and what was measured with it."""

    name: str
    """The change in words."""
    rows: list[list[Row]]
    """The rows of each step."""
    collate: Callable[[list[Row]], dict[str, Any]]
    """Makes a batch of rows: tensors [rows, tokens] int64 by name."""
    loss: Callable[[dict[str, Any]], Any]
    """The loss of a batch, [] float32."""
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The context in which the steps run."""
    against: str = "as it is"
    """The name of the change that it is compared to."""
    seconds: list[float] = field(default_factory=list)
    """Of every step but the first of each round."""
    first: float | None = None
    """Seconds of the first step of the first round."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of the last round."""
    error: str | None = None
    """Why it cannot be measured; None where it can."""


def make_trainer(base: Path, scratch: Path, quantization: str) -> Any:
    """Makes an SFTTrainer over the base, as a trial does."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if gpu else torch.float32,
        quantization_config=nf4 if quantization == "nf4" else None,
        device_map={"": 0} if gpu else "cpu",
        attn_implementation="sdpa",
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(scratch / "out"), max_length=1024, gradient_checkpointing=False, bf16=gpu, use_cpu=not gpu,
            save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        train_dataset=load_dataset("json", data_files=str(base / "train.jsonl"))["train"],
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
    )  # fmt: skip


def batches_of(rows: Sequence[Row], size: int, steps: int) -> list[list[Row]]:
    """The rows as `steps` batches of `size` rows."""
    return [list(rows[begin : begin + size]) for begin in range(0, size * steps, size)]


def one_behind_the_other(rows: Sequence[Row]) -> dict[str, Any]:
    """One batch [1, tokens] int64 of all rows, one behind the other, as TRL packs them: positions tell them apart."""
    import torch

    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    for row in rows:
        ids += row["input_ids"]
        labels += [-100, *row["labels"][1:]]  # the first token of a row is no token's successor
        positions += range(len(row["input_ids"]))
    return {
        "input_ids": torch.tensor([ids]), "labels": torch.tensor([labels]), "position_ids": torch.tensor([positions]),
    }  # fmt: skip


def changes_to(trainer: Any, size: int, steps: int) -> list[Change]:
    """The reference and all changes to it but compiling, over `steps` batches of `size` rows."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model, collate = trainer.model, trainer.data_collator
    rows = [dict(row) for row in trainer.train_dataset.select(range(size * steps))]
    ordered = batches_of(sorted(rows, key=lambda row: len(row["input_ids"])), size, steps)
    shortest = min(len(row["input_ids"]) for row in rows)
    alike = [{name: values[:shortest] for name, values in row.items() if isinstance(values, list)} for row in rows]

    def own(batch: dict[str, Any]) -> Any:
        return trainer.compute_loss(model, dict(batch))

    def all_positions(batch: dict[str, Any]) -> Any:
        return model(**batch).loss

    adapters = [p for p in model.parameters() if p.requires_grad]
    here, there = adapters[0].dtype, torch.bfloat16 if adapters[0].dtype == torch.float32 else torch.float32

    @contextmanager
    def otherwise() -> Iterator[None]:
        kept = [p.data for p in adapters]
        for p in adapters:
            p.data, p.grad = p.data.to(there), None
        try:
            yield
        finally:
            for p, data in zip(adapters, kept, strict=True):
                p.data, p.grad = data, None

    def kernel(backend: Any) -> Callable[[], Any]:
        return lambda: sdpa_kernel(backend)

    plain = batches_of(rows, size, steps)
    found = [
        Change("as it is", plain, collate, own),
        Change("the model's own loss, all logits at once", plain, collate, all_positions),
        Change(f"adapters in {str(there)[6:]} instead of {str(here)[6:]}", plain, collate, own, otherwise),
        Change("rows in order of length", ordered, collate, own),
        Change("rows one behind the other, no padding", plain, one_behind_the_other, own),
        Change("rows of one length, no mask", batches_of(alike, size, steps), collate, own),
    ]
    found += [
        Change(f"the same, {name} alone", batches_of(alike, size, steps), collate, own, kernel(backend), found[-1].name)
        for name, backend in (
            ("flash kernel", SDPBackend.FLASH_ATTENTION),
            ("memory-efficient kernel", SDPBackend.EFFICIENT_ATTENTION),
            ("cuDNN's kernel", SDPBackend.CUDNN_ATTENTION),
            ("torch's mathematics", SDPBackend.MATH),
        )
    ]
    return found


def compiled(trainer: Any, change: Change, name: str, **how: Any) -> Change:
    """The same change with every decoder layer compiled, which cannot be undone. how: arguments of torch.compile."""
    import torch

    torch._dynamo.reset()
    for layer in trainer.model.get_base_model().model.layers:
        layer.compile(**how)
    return Change(name, change.rows, change.collate, change.loss, change.within, change.name)


def run(change: Change, trainer: Any, optimizer: Any) -> None:
    """Runs one round of a change: its steps one after another, each until the GPU is done."""
    import torch

    device = trainer.model.device

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    times, losses = [], []
    try:
        with change.within():
            for rows in change.rows:
                batch = {name: tensor.to(device) for name, tensor in change.collate(rows).items()}
                wait()
                start = time.perf_counter()
                with trainer.compute_loss_context_manager():
                    loss = change.loss(batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                wait()
                times.append(time.perf_counter() - start)
                losses.append(loss.item())
    except Exception as error:  # what a kernel cannot do is an answer
        change.error = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
        optimizer.zero_grad()
        return
    change.first = change.first or times[0]
    change.seconds += times[1:]
    change.losses = losses


def sweep(arguments: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    import torch
    from make_base import make_base, make_rows

    base = scratch / "base"
    make_base(arguments.shape, base)
    sizes = [int(size) for size in arguments.batches.split(",")]
    make_rows(base, max(sizes) * arguments.steps, ROW)
    trainer = make_trainer(base, scratch, arguments.quantization)
    trainer.model.train()
    adapters = [p for p in trainer.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=0.0, weight_decay=0.0, fused=True)
    every = {size: changes_to(trainer, size, arguments.steps) for size in sizes}
    for turn in range(arguments.rounds):
        for size in sizes:
            for change in every[size] if turn % 2 == 0 else reversed(every[size]):
                optimizer.state.clear()  # moments have the adapters' dtype
                run(change, trainer, optimizer)
                say(size, change)
    if arguments.compile:
        for size in sizes:
            reference, same = (next(c for c in every[size] if c.name == name) for name in ("as it is", SAME))
            for change, how in ((same, {"dynamic": False}), (reference, {"dynamic": True})):
                words = "shapes may differ" if how["dynamic"] else "one shape"
                every[size].append(compiled(trainer, change, f"torch.compile of each layer, {words}", **how))
                for _ in range(arguments.rounds):
                    run(every[size][-1], trainer, optimizer)
                say(size, every[size][-1])
    return [cell for size in sizes for cell in cells_of(size, every[size])]


SAME = "rows of one length, no mask"
"""The name of the change in which all rows have one length."""


def say(size: int, change: Change) -> None:
    """Prints what was measured of a change so far."""
    told = change.error or f"{statistics.median(change.seconds):.4f} s, the first {change.first:.2f} s"
    print(f"batch {size}: {change.name}: {told}", file=sys.stderr, flush=True)


def cells_of(size: int, changes: list[Change]) -> list[dict[str, Any]]:
    """A row for each change, with its ratio to the change that it is compared to."""
    by_name = {change.name: change for change in changes}
    cells = []
    for change in changes:
        cell: dict[str, Any] = {"batch": size, "change": change.name}
        if change.error:
            cells.append({**cell, "error": change.error})
            continue
        other = by_name[change.against]
        median, tokens = statistics.median(change.seconds), sum(len(r["input_ids"]) for b in change.rows for r in b)
        against = statistics.median(other.seconds) * tokens / sum(len(r["input_ids"]) for b in other.rows for r in b)
        cells.append(
            {
                **cell,
                "step_s": round(median, 4),
                "spread_s": [round(min(change.seconds), 4), round(max(change.seconds), 4)],
                "first_s": round(change.first or 0.0, 2),
                "tokens_a_second": round(tokens / len(change.rows) / median),
                "against": change.against,
                "times": round(against / median, 2),
                "loss_difference": abs(statistics.mean(change.losses) - statistics.mean(other.losses)),
            }
        )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="1.5b")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--batches", default="2,32", help="rows of a step")
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        cells = sweep(arguments, Path(scratch))
    from tuner.results.versions import versions

    for cell in cells:
        told = cell.get("error") or (
            f"{cell['step_s']:.4f} s  {cell['tokens_a_second']:>7,} tokens/s  {cell['times']:.2f}x  "
            f"first {cell['first_s']:.1f} s  loss {cell['loss_difference']:.1e}"
        )
        print(f"{cell['batch']:>3}  {cell['change']:<46} {told}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"versions": versions(), "date": time.strftime("%Y-%m-%d"), "cells": cells}))


if __name__ == "__main__":
    main()
