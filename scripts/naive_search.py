"""The naive search that `bench_makespan.py` measures beside tuner's: Ray Tune, with everything loaded in each trial.

    python scripts/naive_search.py JOB.json           # "naive": reuse_actors=False
    python scripts/naive_search.py JOB.json --reuse   # "naive-reuse": reuse_actors=True

It is the usual way to run such trials, and a fair peer: a function trainable that loads all it needs and runs an
SFTTrainer with `peft_config=`, over the same rows, steps, evaluations, seed and hyperparameters, without gradient
checkpointing. `bench_makespan.py` writes JOB.json. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def naive_trial(config: dict[str, Any]) -> None:
    """The function trainable of a trial: loads base, tokenizer and rows, then trains."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from ray import tune
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    job, gpu = config["job"], torch.cuda.is_available()
    bf16 = job["dtype"] == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        if job["quantization"] == "nf4"
        else None
    )
    model = AutoModelForCausalLM.from_pretrained(
        job["base"],
        dtype=torch.bfloat16 if bf16 else torch.float32,
        quantization_config=quantization,
        device_map={"": 0} if gpu else "cpu",
        attn_implementation="sdpa",
    )
    rows = load_dataset("json", data_files={"train": job["train"], "validation": job["validation"]})
    validation = rows["validation"].select(range(min(job["validation_rows"], len(rows["validation"]))))

    class Report(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            tune.report({"eval_loss": metrics["eval_loss"], "step": state.global_step})

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch"],
            per_device_eval_batch_size=8,
            learning_rate=config["learning_rate"],
            warmup_steps=max(1, round(0.05 * job["steps"])),
            max_length=job["max_length"],
            gradient_checkpointing=False,
            bf16=gpu and bf16,
            use_cpu=not gpu,
            eval_strategy="steps",
            eval_steps=job["eval_steps"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
            data_seed=job["seed"],
        ),
        train_dataset=rows["train"],
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=config["lora_r"], lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
        ),
        callbacks=[Report()],
    )
    trainer.train()
    trainer.save_model()


def run_naive(job: dict[str, Any], *, reuse: bool) -> dict[str, Any]:
    """Runs the naive trainable over the job's configurations; gives seconds of `fit`, and losses by configuration.

    reuse: keeps the processes of ended trials.
    """
    import ray
    from ray import tune

    ray.init(address="local", log_to_driver=False, logging_level="ERROR")
    gpu = ray.cluster_resources().get("GPU", 0)
    start = time.time()
    tuner = tune.Tuner(
        tune.with_resources(naive_trial, {"cpu": 1, "gpu": 1 if gpu else 0}),
        param_space={"job": job},
        tune_config=tune.TuneConfig(
            search_alg=given(job["configurations"]),
            num_samples=job["trials"],
            max_concurrent_trials=job["workers"],
            reuse_actors=reuse,
            metric="eval_loss",
            mode="min",
        ),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    )
    results = tuner.fit()
    wall = time.time() - start
    losses = {}
    for result in results:
        which = job["configurations"].index({k: result.config[k] for k in job["searched"]})
        losses[which] = result.metrics["eval_loss"]
    ray.shutdown()
    return {"fit_s": wall, "trials": job["trials"], "losses": [losses.get(i) for i in range(job["trials"])]}


def given(configurations: list[dict[str, Any]]) -> Any:
    """A Ray searcher that hands out a list of configurations."""
    from ray.tune.search import Searcher

    class Given(Searcher):
        def __init__(self) -> None:
            super().__init__(metric="eval_loss", mode="min")
            self.left = list(configurations)

        def suggest(self, trial_id: str) -> Any:
            return self.left.pop(0) if self.left else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None: ...

    return Given()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--reuse", action="store_true", help="keep the processes")
    arguments = parser.parse_args()
    print(json.dumps(run_naive(json.loads(arguments.job.read_text()), reuse=arguments.reuse)))


if __name__ == "__main__":
    main()
