"""Measures how the demo answers to its hyperparameters: full-budget LoRA trials by a real SFTTrainer, no search.

    python scripts/bench_demo.py --demo tuner/demo --grid small --threads 1
    python scripts/bench_demo.py --demo tuner/demo --grid full --workers 12 --json spread.json      # on a GPU

Prints a table of validation losses and the seconds of each trial. Each trial is 100 optimizer steps, evaluated ten
times, as the demo's `search.yaml` asks for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RECIPE: dict[str, Any] = {
    "learning_rate": 1.0e-3,
    "lora_r": 8,
    "lora_alpha_mode": "fixed",
    "effective_batch_size": 8,
    "target_modules": "all-linear",
    "lr_scheduler_type": "linear",
}
TARGETS = {"all-linear": "all-linear", "attention": ["q_proj", "k_proj", "v_proj", "o_proj"]}
STEPS, LORA_ALPHA = 100, 16


def alpha(mode: str, rank: int) -> dict[str, Any]:
    """The LoRA scaling of a mode, in PEFT's arguments."""
    if mode == "2r":
        return {"lora_alpha": 2 * rank}
    return {"lora_alpha": LORA_ALPHA, "use_rslora": mode == "rslora"}


def trial(demo: Path, point: dict[str, Any], threads: int, base: Path | None = None) -> dict[str, Any]:
    """Trains one point for the full budget; its losses, curve and seconds (imports and set-up not counted)."""
    import torch

    torch.set_num_threads(threads)
    import logging

    import datasets
    import transformers
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    values = RECIPE | point
    folder = base or demo / "base"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = {
        name: datasets.Dataset.from_json(str(demo / f"{name}.jsonl"), keep_in_memory=True)
        for name in ("train", "validation")
    }
    config = SFTConfig(
        output_dir="/tmp/bench_demo",
        max_steps=STEPS,
        learning_rate=values["learning_rate"],
        lr_scheduler_type=values["lr_scheduler_type"],
        warmup_steps=0.03,
        per_device_train_batch_size=values["effective_batch_size"],
        per_device_eval_batch_size=32,
        max_length=128,
        eval_strategy="steps",
        eval_steps=STEPS // 10,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        bf16=False,
        gradient_checkpointing=False,
        dataloader_num_workers=0,
        disable_tqdm=True,
        seed=0,
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=values["lora_r"],
        target_modules=TARGETS[values["target_modules"]],
        **alpha(values["lora_alpha_mode"], values["lora_r"]),
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    before = trainer.evaluate()["eval_loss"]
    started, used = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry and entry["step"] > 0]
    curve = [entry["eval_loss"] for entry in history]
    return {
        **values,
        "eval_loss": curve[-1],
        "curve": [round(loss, 3) for loss in curve],
        "before": before,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),  # what one thread takes on a machine that does nothing else
        "evaluation_seconds": round(sum(entry["eval_runtime"] for entry in history), 2),
        "trainable": sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad),
    }


def grid(name: str) -> list[dict[str, Any]]:
    """The points of a named grid; the recipe is always the first."""
    points: list[dict[str, Any]] = [{}]
    if name == "one":
        return points
    if name == "small":
        rates = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        return points + [{"learning_rate": rate} for rate in rates if rate != RECIPE["learning_rate"]]
    rates, ranks, batches = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (4, 16, 64), (4, 8, 16)
    for rank, batch, rate in itertools.product(ranks, batches, rates):
        points.append({"learning_rate": rate, "lora_r": rank, "effective_batch_size": batch})
    for mode, rank, rate in itertools.product(("2r", "rslora"), (4, 16, 64), (3e-4, 1e-3, 3e-3, 1e-2)):
        points.append({"learning_rate": rate, "lora_r": rank, "lora_alpha_mode": mode})
    for targets, schedule, rate in itertools.product(
        TARGETS, ("linear", "cosine", "constant_with_warmup"), (1e-3, 3e-3, 1e-2)
    ):
        points.append({"learning_rate": rate, "target_modules": targets, "lr_scheduler_type": schedule})
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("tuner/demo"))
    parser.add_argument("--base", type=Path, default=None, help="another base than the demo's")
    parser.add_argument("--grid", choices=("one", "small", "full"), default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="trials at a time, each in its own process")
    parser.add_argument("--json", type=Path, default=None, help="also write every trial here")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    points = grid(arguments.grid)
    results = []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(trial, arguments.demo, point, arguments.threads, arguments.base) for point in points]
        for job in jobs:
            result = job.result()
            results.append(result)
            shown = " ".join(f"{result[key]!s:>11}" for key in RECIPE)
            print(f"{shown}  {result['eval_loss']:.3f}  {result['seconds']:5.1f} s  {result['curve']}", flush=True)
    losses = [result["eval_loss"] for result in results]
    best, worst, recipe = min(losses), max(losses), losses[0]
    print(f"base {results[0]['before']:.3f}  recipe {recipe:.3f}  best {best:.3f}  worst {worst:.3f}")
    print(f"worst / best {worst / best:.2f}  best below the recipe by {1 - best / recipe:.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
