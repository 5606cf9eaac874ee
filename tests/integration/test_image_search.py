"""A search over rows with images on the CPU, as a user starts it: real Ray, real SFTTrainer, a real processor."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.images import image_bases
from tuner.contract import Reason
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]

RELOAD = """
# base, adapter or "", processor, rows: the loss of the rows and what is answered, by transformers, TRL and PEFT alone
import json, pathlib, sys
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

base, adapter, place, file = sys.argv[1:]
torch.set_num_threads(1)
model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
if adapter:
    model = PeftModel.from_pretrained(model, adapter).eval()
processor = AutoProcessor.from_pretrained(place)
rows = [json.loads(line) for line in open(file)]
for row in rows:
    row["images"] = [Image.open(pathlib.Path(file).parent / name).convert("RGB") for name in row["images"]]
collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
total, answers = 0.0, []
with torch.no_grad():
    for begin in range(0, len(rows), 8):
        part = rows[begin : begin + 8]
        batch = collate([dict(row) for row in part])
        total += model(**batch).loss.item() * len(part)
    for row in rows[:12]:
        said = [{"type": "image"}, {"type": "text", "text": row["prompt"][0]["content"]}]
        text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
        given = processor(images=row["images"], text=text, return_tensors="pt", add_special_tokens=False)
        end = processor.tokenizer.eos_token_id
        made = model.generate(**given, max_new_tokens=32, do_sample=False, eos_token_id=end)
        answers.append(processor.tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
print(json.dumps({"loss": total / len(rows), "answers": answers}))
"""


def tuner(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def reloaded(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", RELOAD, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
def test_a_search_over_shapes_and_colours(tmp_path: Path) -> None:
    """8 trials on two cores answer to their hyperparameters; the winner says what it sees, exported and merged too."""
    base = image_bases.save("gemma3", tmp_path / "base")
    script = ROOT / "scripts" / "make_shapes.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "shapes")], check=True)
    rows = tmp_path / "shapes"
    settings = {
        "model": {"model_name_or_path": str(base)},
        "data": {"train": str(rows / "train.jsonl"), "validation": str(rows / "validation.jsonl"), "max_length": 64},
        "train": {"max_steps": 120, "effective_batch_size": 16, "per_device_train_batch_size": 16},
        "scheduler": {"kind": "none"},
        "search": {"num_trials": 8, "space": {"parameters": {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
            "lora_r": {"type": "choice", "values": [8, 32]},
            "vision": {"type": "choice", "values": ["frozen", "adapted"]},
        }}},
    }  # fmt: skip
    (tmp_path / "search.yaml").write_text(json.dumps(settings))
    began = time.monotonic()
    answer = json.loads(tuner(tmp_path, "search", "search.yaml", "--json", "--name", "a", "--storage-path", "runs"))
    wall = time.monotonic() - began
    record = SearchRecord.fold(read_ledger(tmp_path / "runs" / "a" / "trials.jsonl"))
    full = [t.best_value for t in record.trials.values() if t.reason is Reason.BUDGET and t.best_value]
    assert len(record.trials) == 8 and len(full) >= 6
    assert max(full) >= 1.3 * min(full), sorted(full)
    assert {t.params["vision"] for t in record.trials.values()} == {"frozen", "adapted"}
    adapted = [t.setup["parts"] for t in record.trials.values() if t.params["vision"] == "adapted"]
    assert adapted and all("vision: none" not in parts for parts in adapted)

    best = str(tmp_path / "runs" / "a" / "best")
    file = str(rows / "validation.jsonl")
    winner, plain = reloaded(str(base), best, best, file), reloaded(str(base), "", str(base), file)
    assert math.isclose(winner["loss"], answer["best"]["eval_loss"], abs_tol=1e-3)
    known = {f"a {colour} {shape}" for colour in ("red", "green", "blue", "yellow", "black", "white")
             for shape in ("circle", "square", "triangle")}  # fmt: skip
    assert set(winner["answers"]) <= known and not set(plain["answers"]) & known, (winner, plain)
    merged = str(tmp_path / "merged")
    tuner(tmp_path, "export", "a", "--storage-path", "runs", "--to", merged, "--merge")
    again = reloaded(merged, "", merged, file)
    assert again["answers"] == winner["answers"] and math.isclose(again["loss"], winner["loss"], abs_tol=1e-3)
    print(f"{wall:.0f} s, full trials {min(full):.3f} to {max(full):.3f}, {winner}, {plain}")
