"""Measures a search over rows with images beside one over rows of text, on the same base, each with its peer.

    python scripts/bench_images.py --json          # one GPU: the shape of Qwen2.5-VL-3B, NF4, images of 512 by 512
    python scripts/bench_images.py --tiny          # a base of two layers on the CPU, to try the script

The base has random weights and the sizes of Qwen2.5-VL-3B; rows of text have about as many tokens as rows with images.
The searches run as a user starts them, one trial at a time in one worker. The peer ("plain") is an SFTTrainer in a
process of its own, with TRL's collator, over the same rows, steps and evaluations; its processor is loaded as tuner
loads it, because AutoProcessor fails without torchvision.

"Start" lasts from the beginning of an attempt (of the peer: of its process) to its first step: the time of its first
evaluation, less that of a later interval between two evaluations. A first start has the worker's imports and the load
of the base in it, a second one has neither. "Tokens a second" are those of the later intervals, evaluations included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DEMO = ROOT / "tuner" / "demo" / "base"
MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{%- macro written(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
    "{%- for message in messages -%}<|{{ message.role }}|>{{ written(message.content) }}<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
TEXT: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION: dict[str, Any] = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
    "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
"""Qwen2.5-VL-3B's, by its config.json."""
TINY_TEXT: dict[str, Any] = {
    **TEXT, "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
}  # fmt: skip
TINY_VISION: dict[str, Any] = {
    **VISION, "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
    "window_size": 56, "fullatt_block_indexes": [1],
}  # fmt: skip
MERGE = 2
"""Patches of a side that become one token."""
RANK, RATE = 16, 3e-4
SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True}}}


def make_base(to: Path, *, tiny: bool) -> int:
    """Writes the model folder with tokenizer and processor; gives its number of parameters."""
    import torch
    from transformers import (
        AutoTokenizer,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    text, vision = (TINY_TEXT, TINY_VISION) if tiny else (TEXT, VISION)
    tokenizer = AutoTokenizer.from_pretrained(str(DEMO))
    tokenizer.add_special_tokens({"extra_special_tokens": [*MARKS, "<|user|>", "<|assistant|>", "<|end|>"]})
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, text["max_position_embeddings"]
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(MARKS))
    ids = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id,
           "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={**text, **ids}, vision_config=vision, tie_word_embeddings=True, image_token_id=image,
        video_token_id=video, vision_start_token_id=start, vision_end_token_id=end, **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu"):
        made = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32 if tiny else torch.bfloat16)
    made.save_pretrained(str(to))
    tokenizer.save_pretrained(str(to))
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    patch: int = vision["patch_size"]
    Qwen2VLImageProcessorPil(patch_size=patch, merge_size=MERGE, temporal_patch_size=2, size=size).save_pretrained(to)
    (to / "processor_config.json").write_text(json.dumps({"processor_class": "Qwen2_5_VLProcessor"}))
    return sum(parameter.numel() for parameter in made.parameters())


def make_rows(folder: Path, rows: int, measured: int, size: int) -> None:
    """Writes folder/images with pictures of `size` by `size` pixels, and folder/text with rows of as many tokens.

    rows, measured: rows to learn and to measure.
    """
    script = ROOT / "scripts" / "make_shapes.py"
    place = folder / "images"
    command = [sys.executable, str(script), str(place), "--rows", str(rows), "--size", str(size)]
    subprocess.run(command, check=True)
    tokens = (size // (VISION["patch_size"] * MERGE)) ** 2 + 20  # an image's, a question's and an answer's
    code = f"from make_base import make_rows; from pathlib import Path; make_rows(Path({str(folder / 'text')!r}), "
    (folder / "text").mkdir()
    subprocess.run([sys.executable, "-c", f"{code}{rows}, {tokens})"], cwd=ROOT / "scripts", check=True)
    for kind in ("images", "text"):
        file = folder / kind / "validation.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:measured]))


def experiment(job: dict[str, Any], kind: str, storage: Path) -> dict[str, Any]:
    """The experiment as tuner reads it. Without scheduler and rules: every trial runs all its steps."""
    quantization = {"kind": "nf4", "compute_dtype": job["dtype"]}
    return {
        "model": {"model_name_or_path": job["base"], "dtype": job["dtype"], "quantization": quantization},
        "data": {
            "train": f"{job['rows']}/{kind}/train.jsonl",
            "validation": f"{job['rows']}/{kind}/validation.jsonl",
            "max_length": 1024,
        },
        "train": {
            "max_steps": job["steps"],
            "effective_batch_size": job["batch"],
            "per_device_train_batch_size": job["batch"],
            "per_device_eval_batch_size": job["batch"],
            "eval_steps": job["eval_steps"],
            "learning_rate": RATE,
            "lora_r": RANK,
        },
        "search": {"space": SPACE, "num_trials": job["trials"], "sampler": "random", "seed": 0},
        "scheduler": {"kind": "none"},
        "resources": {"max_concurrent_trials": 1},
        "run": {"storage_path": str(storage), "name": kind},
    }


def run_tuner(job: dict[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """Runs a search over rows of a kind, "images" or "text", as a user starts it; gives its figures."""
    from tuner.results.ledger import read_ledger
    from tuner.results.records import SearchRecord

    file = folder / f"{kind}.yaml"
    file.write_text(json.dumps(experiment(job, kind, folder / "runs")))
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "search", str(file), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall = time.time() - began
    if done.returncode:
        raise SystemExit(f"tuner search ended with {done.returncode}:\n{done.stderr[-4000:]}")
    run = folder / "runs" / kind
    events = list(read_ledger(run / "trials.jsonl"))
    record = SearchRecord.fold(events)
    trials = [record.trials[number] for number in sorted(record.trials)]
    if any(trial.points[-1].step != job["steps"] for trial in trials):
        raise SystemExit(f"a trial over {kind} did not run all its steps: {[trial.message for trial in trials]}")
    times = {
        t.number: [e.time for e in events if e.number == t.number and e.step is not None and e.metrics is not None]
        for t in trials
    }
    points = {t.number: [(p.tokens, at) for p, at in zip(t.points, times[t.number], strict=True)] for t in trials}
    starts = [start_of(points[t.number], t.started or began) for t in trials]
    return {
        "wall_s": wall,
        "start_s": starts,
        "set_up_s": [(t.set_up or began) - (t.started or began) for t in trials],
        "tokens_a_second": statistics.median(rate_of(points[t.number]) for t in trials),
        "tokens_a_trial": trials[0].tokens,
        "peak_bytes": max((p.memory for t in trials for p in t.points if p.memory), default=None),
        "memory_before": [t.setup.get("memory_before") for t in trials],
        "losses": [p.value for p in trials[0].points],
        "base_class": trials[0].setup.get("base_class"),
        "excluded": json.loads((run / "best" / "adapter_config.json").read_text())["exclude_modules"],
        "seed": job["seed"],
    }


def start_of(points: list[tuple[int, float]], began: float) -> float:
    """Seconds to the first step. points: tokens and time at each evaluation. began: time of the attempt's beginning."""
    return points[0][1] - began - statistics.median(interval for _, interval in _intervals(points))


def rate_of(points: list[tuple[int, float]]) -> float:
    """Tokens a second after the first evaluation."""
    return statistics.median(tokens / interval for tokens, interval in _intervals(points))


def _intervals(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(later[0] - before[0], later[1] - before[1]) for before, later in itertools.pairwise(points)]


def run_plain(job: dict[str, Any], kind: str, excluded: Any, folder: Path) -> dict[str, Any]:
    """Runs the recipe in a plain SFTTrainer, in a process of its own; gives its figures."""
    file = folder / f"plain-{kind}.json"
    file.write_text(json.dumps({**job, "kind": kind, "excluded": excluded}))
    began = time.time()
    command = [sys.executable, __file__, "--plain", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the plain trainer over {kind} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    points = [(tokens, at) for tokens, at in found.pop("points")]
    return {
        "wall_s": time.time() - began,
        "start_s": [start_of(points, began)],
        "tokens_a_second": rate_of(points),
        "tokens_a_trial": points[-1][0],
        **found,
    }


def plain(job: dict[str, Any]) -> dict[str, Any]:
    """The peer: an SFTTrainer over rows that `datasets` reads, with the collator that TRL makes for it."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig, Qwen2_5_VLForConditionalGeneration, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from trainables import runtime
    from trainables.images import processors

    gpu, dtype = torch.cuda.is_available(), getattr(torch, job["dtype"])
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        job["base"], dtype=dtype, quantization_config=quantization, device_map={"": 0} if gpu else "cpu",
        attn_implementation="sdpa",
    )  # fmt: skip
    for module in model.modules():  # weights that bitsandbytes repacks (AVX512-BF16) have no backward
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    place = Path(job["rows"]) / job["kind"]
    sets = datasets.load_dataset("json", data_files={n: str(place / f"{n}.jsonl") for n in ("train", "validation")})
    if job["kind"] == "images":
        sets = sets.map(lambda row: {"images": [str(place / name) for name in row["images"]]})
        sets = sets.cast_column("images", datasets.List(datasets.Image()))
        made = experiment(job, "images", place)
        settings = runtime.validated({name: made[name] for name in ("model", "data", "train")})
        processing = processors.load(settings.model, settings.data)[0]
    else:
        processing = AutoTokenizer.from_pretrained(job["base"])
    points: list[tuple[int, float]] = []
    losses: list[float] = []
    seen = [0]

    class Measure(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            seen[0] = int((logs or {}).get("num_tokens", seen[0]))

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            points.append((seen[0], time.time()))
            losses.append(metrics["eval_loss"])

    if gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), max_steps=job["steps"], per_device_train_batch_size=job["batch"],
            per_device_eval_batch_size=job["batch"], learning_rate=RATE, warmup_steps=job["warmup"],
            lr_scheduler_type="linear", optim="adamw_torch_fused", max_length=1024, gradient_checkpointing=False,
            bf16=gpu, use_cpu=not gpu, eval_strategy="steps", eval_steps=job["eval_steps"], logging_strategy="steps",
            logging_steps=job["eval_steps"], save_strategy="no", report_to="none", disable_tqdm=True,
            seed=job["seed"], data_seed=job["seed"],
        ),
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        processing_class=processing,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=32, target_modules="all-linear",
            exclude_modules=job["excluded"],
        ),
        callbacks=[Measure()],
    )  # fmt: skip
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if gpu else None
    return {"points": points, "losses": losses, "peak_bytes": peak}


def report(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Prints a row for each way; gives the ratios."""
    print(f"{'':<14} {'peak memory':>12} {'tokens/s':>9} {'tokens':>8} {'1st start':>10} {'2nd start':>10} {'wall':>8}")
    for name, row in found.items():
        first, second = (*row["start_s"], None)[:2]
        cells = (
            f"{row['peak_bytes'] / 2**30:.2f} GiB" if row["peak_bytes"] else "–",
            f"{row['tokens_a_second']:,.0f}", f"{row['tokens_a_trial']:,}", f"{first:.2f} s",
            f"{second:.2f} s" if second is not None else "–", f"{row['wall_s']:.1f} s",
        )  # fmt: skip
        widths = (12, 9, 8, 10, 10, 8)
        print(f"{name:<14} " + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    ratios = {}
    if {"images", "text"} <= found.keys():
        images, text = found["images"], found["text"]
        ratios["second_start"] = images["start_s"][1] / text["start_s"][1]
        ratios["later_starts"] = statistics.median(images["start_s"][1:]) / statistics.median(text["start_s"][1:])
        ratios["second_set_up"] = images["set_up_s"][1] / text["set_up_s"][1]
        print(f"second trial's start, images to text: {ratios['second_start']:.2f} (goal: at most 1.3); median of all "
              f"later starts: {ratios['later_starts']:.2f}; set-up alone: {ratios['second_set_up']:.2f}")  # fmt: skip
    for kind in ("images", "text"):
        if {kind, f"plain {kind}"} <= found.keys():
            own, peer = found[kind], found[f"plain {kind}"]
            ratios[f"{kind}_speed"] = own["tokens_a_second"] / peer["tokens_a_second"]
            ratios[f"{kind}_difference"] = max(abs(a - b) for a, b in zip(own["losses"], peer["losses"], strict=True))
            print(f"{kind}: {ratios[f'{kind}_speed']:.2f} times the plain trainer's tokens a second, losses of the "
                  f"recipe {ratios[f'{kind}_difference']:.1e} apart")  # fmt: skip
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a base of two layers and small images, on the CPU")
    parser.add_argument("--size", type=int, help="sides of an image in pixels; default: 512, with --tiny 112")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eval-steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", type=int, default=96, help="rows to learn")
    parser.add_argument("--ways", default="images,text,plain images,plain text", help="plain ones after their own")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make-base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if given.make_base:
        print(make_base(given.make_base, tiny=given.tiny))
    elif given.plain:
        print(json.dumps(plain(json.loads(given.plain.read_text()))))
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Makes base and rows, runs every way, and reports."""
    from tuner.seeds import derive_seed

    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-images-") as scratch:
        folder, began = Path(scratch), time.time()
        command = [sys.executable, __file__, "--make-base", str(folder / "base")] + ["--tiny"] * given.tiny
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        parameters = int(made.split()[-1])
        make_rows(folder, given.rows, given.batch, given.size or (112 if given.tiny else 512))
        _say(f"{parameters:,} parameters and {given.rows} rows of each kind in {time.time() - began:.0f} s")
        job = {
            "base": str(folder / "base"), "rows": str(folder), "dtype": "float32" if given.tiny else "bfloat16",
            "steps": given.steps, "eval_steps": given.eval_steps, "batch": given.batch, "trials": given.trials,
            "warmup": math.ceil(0.03 * given.steps), "seed": derive_seed(0, "trial"),
        }  # fmt: skip
        for name in given.ways.split(","):
            word, _, kind = name.partition(" ")
            if word == "plain":
                found[name] = run_plain(job, kind, found[kind]["excluded"], folder)
            else:
                found[name] = run_tuner(job, name, folder)
            _say(f"{name}: {json.dumps(found[name])}")  # at once: a run may be cut off
    ratios = report(found)
    if given.json:
        from bench_makespan import machine

        from tuner.results.versions import versions

        about = {
            "machine": machine(),
            "versions": versions(),
            "date": time.strftime("%Y-%m-%d"),
            "parameters": parameters,
        }
        settings = {k: v for k, v in vars(given).items() if k not in ("json", "make_base", "plain")}
        print(json.dumps({"about": about, "settings": settings, "ways": found, "ratios": ratios}))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
