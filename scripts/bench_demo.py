"""Measures how the demo's loss depends on its hyperparameters: LoRA trials of all steps by a real SFTTrainer.

    python scripts/bench_demo.py                                              # the recipe and seven learning rates
    python scripts/bench_demo.py --draws 48 --workers 15 --json spread.json   # and 48 points of the demo's own space

Every trial is a job of a process pool on one thread of the CPU: it loads the base, takes the recipe of `search.yaml`
with some values changed, trains `max_steps` steps and evaluates ten times. Prints a line for each trial, and the spread
of losses at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TARGETS = {
    "all-linear": "all-linear",
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}


def scaling(train: dict[str, Any]) -> dict[str, Any]:
    """PEFT's arguments for the LoRA scaling of `lora_alpha_mode`."""
    if train["lora_alpha_mode"] == "2r":
        return {"lora_alpha": 2 * train["lora_r"]}
    return {"lora_alpha": train["lora_alpha"], "use_rslora": train["lora_alpha_mode"] == "rslora"}


def trial(demo: Path, base: Path, train: dict[str, Any], point: dict[str, Any]) -> dict[str, Any]:
    """Trains one point for all steps; gives its loss, curve and seconds without imports and set-up."""
    import logging

    import datasets
    import torch
    import transformers
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    train = {"lr_scheduler_type": "linear", "target_modules": "all-linear"} | train | point
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = {
        name: datasets.Dataset.from_json(str(demo / f"{name}.jsonl"), keep_in_memory=True)
        for name in ("train", "validation")
    }
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=train["max_steps"],
        learning_rate=train["learning_rate"],
        lr_scheduler_type=train["lr_scheduler_type"],
        warmup_steps=round(train["warmup_ratio"] * train["max_steps"]),
        per_device_train_batch_size=train["effective_batch_size"],
        per_device_eval_batch_size=train["per_device_eval_batch_size"],
        max_length=128,
        eval_strategy="steps",
        eval_steps=round(train["eval_steps"] * train["max_steps"]),
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=train["lora_r"], target_modules=TARGETS[train["target_modules"]], **scaling(train)
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
    curve = [round(entry["eval_loss"], 4) for entry in history]
    return {
        **{name: train[name] for name in ("learning_rate", "lora_r", "lora_alpha_mode", "effective_batch_size")},
        **{name: train[name] for name in ("lr_scheduler_type", "target_modules")},
        "eval_loss": curve[-1],
        "curve": curve,
        "base_loss": round(before, 4),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),  # what the trial would take on a core of its own
        "evaluation_seconds": round(sum(entry["eval_runtime"] for entry in history), 2),
        "trainable": sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad),
    }


def draw(space: dict[str, Any], random: Random) -> dict[str, Any]:
    """Draws a point of the space, each parameter independently."""
    point: dict[str, Any] = {}
    for name, parameter in space.items():
        if parameter["type"] == "choice":
            point[name] = random.choice(parameter["values"])
        else:
            low, high = math.log(parameter["low"]), math.log(parameter["high"])
            point[name] = float(f"{math.exp(random.uniform(low, high)):.3g}")
    return point


def main() -> None:
    import yaml

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("tuner/demo"))
    parser.add_argument("--base", type=Path, default=None, help="another base than the demo's")
    parser.add_argument("--rates", nargs="*", type=float, default=RATES, help="learning rates tried with the recipe")
    parser.add_argument("--draws", type=int, default=0, help="points drawn from the demo's space")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time, one thread each")
    parser.add_argument("--json", type=Path, default=None, help="write every trial here too")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    search = yaml.safe_load((arguments.demo / "search.yaml").read_text("utf-8"))
    recipe = search["train"]
    space, random = search["search"]["space"]["parameters"], Random(0)
    points = [{}, *({"learning_rate": rate} for rate in arguments.rates if rate != recipe["learning_rate"])]
    points += [draw(space, random) for _ in range(arguments.draws)]
    base, results = arguments.base or arguments.demo / "base", []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for job in [pool.submit(trial, arguments.demo, base, recipe, point) for point in points]:
            result = job.result()
            results.append(result)
            shown = "  ".join(f"{value!s:<10}" for value in list(result.values())[:6])
            seconds = f"{result['cpu_seconds']:5.1f} s ({result['evaluation_seconds']:.1f})"
            print(f"{shown} {result['eval_loss']:.3f} {seconds} {result['curve']}", flush=True)
    losses = [result["eval_loss"] for result in results]
    best, worst, first = min(losses), max(losses), losses[0]
    print(f"base {results[0]['base_loss']:.3f}  recipe {first:.3f}  best {best:.3f}  worst {worst:.3f}")
    print(f"worst / best {worst / best:.2f}, best below the recipe by {1 - best / first:.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
