"""The embedded default and the qlora space, as a user starts them: real Ray, real SFTTrainer, real NF4."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.programs.browser import browser, needs_browser, until
from tuner.cli import run
from tuner.contract import Reason
from tuner.report.table import parameters
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]

MAIN = """
# python -m tuner, which also writes at its end which modules the driver has imported
import atexit, pathlib, runpy, sys
atexit.register(lambda: pathlib.Path("modules").write_text(" ".join(sys.modules)))
runpy.run_module("tuner", run_name="__main__", alter_sys=True)
"""

RELOAD = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

folder, rows_file, nf4, batch = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
base = json.load(open(folder + "/adapter_config.json"))["base_model_name_or_path"]
quantization = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=nf4
) if nf4 else None
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=quantization)
model = PeftModel.from_pretrained(model, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
rows = []
for line in open(rows_file):
    row = json.loads(line)
    prompt = tokenizer(row["prompt"])["input_ids"]
    both = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
    same = next((i for i, (a, b) in enumerate(zip(prompt, both)) if a != b), len(prompt))
    rows.append((both, [-100] * same + both[same:]))
total = 0.0
for start in range(0, len(rows), batch):
    part = rows[start : start + batch]
    width = max(len(ids) for ids, _ in part)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in part])
    labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in part])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in part])
    # Over NF4 SFTTrainer evaluates under autocast: without it the loss of a rank of 64 is 2e-3 away
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=nf4 == "bfloat16"):
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    total += loss.item() * len(part)
print(total / len(rows))
"""


def search(folder: Path, *arguments: str) -> tuple[dict[str, Any], SearchRecord]:
    command = [sys.executable, "-c", MAIN, "search", "--json", "--name", "a", "--storage-path", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1, "standard output holds the one JSON object"
    return json.loads(done.stdout), SearchRecord.fold(read_ledger(folder / "a" / "trials.jsonl"))


def reloaded_loss(answer: dict[str, Any], nf4: str = "") -> float:
    """The best adapter's validation loss, by plain transformers and peft in a new process. nf4: the compute dtype of an
    NF4 base; "": the base is not quantized."""
    resolved = json.loads((Path(answer["path"]) / "resolved.json").read_text())
    batch = resolved["train"]["per_device_eval_batch_size"]
    arguments = [answer["best"]["path"], resolved["data"]["validation"], nf4, str(batch)]
    done = subprocess.run([sys.executable, "-c", RELOAD, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def assert_study_tells_the_truth(answer: dict[str, Any], record: SearchRecord) -> None:
    storage = JournalStorage(JournalFileBackend(str(Path(answer["path"]) / "study.journal")))
    trials = optuna.load_study(study_name="a", storage=storage).trials
    states = {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert [t.state.name for t in trials] == [states[str(record.trials[n].status)] for n in range(len(trials))]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], SearchRecord]:
    return search(tmp_path_factory.mktemp("default"))


def test_the_default_search_beats_its_recipe(default: tuple[dict[str, Any], SearchRecord]) -> None:
    answer, record = default
    assert sum(answer["counts"]["status"].values()) == answer["trials"] == 16
    assert answer["counts"]["reason"]["rung"] >= 1
    assert record.recipe and record.recipe.reason is Reason.BUDGET
    assert answer["best"]["eval_loss"] < 0.97 * answer["recipe"]["eval_loss"]
    assert all(0 < t.setup["trainable_parameters"] < t.setup["total_parameters"] for t in record.trials.values())
    assert_study_tells_the_truth(answer, record)


def test_the_best_adapter_gives_its_loss_in_plain_peft(default: tuple[dict[str, Any], SearchRecord]) -> None:
    answer, _ = default
    assert math.isclose(reloaded_loss(answer), answer["best"]["eval_loss"], abs_tol=1e-3)


def test_a_worker_pays_for_its_imports_once(default: tuple[dict[str, Any], SearchRecord]) -> None:
    _, record = default
    starts = sorted(t.points[0].seconds for t in record.trials.values())
    assert record.workers <= 2 and starts[len(starts) // 2] < 5


def test_the_driver_imports_no_torch(default: tuple[dict[str, Any], SearchRecord]) -> None:
    answer, _ = default
    modules = set((Path(answer["path"]).parent / "modules").read_text().split())
    assert "ray.tune" in modules and not modules & {"torch", "transformers", "trl", "peft", "tensorboardX"}


def test_its_report_says_what_it_did_and_what_to_run(
    default: tuple[dict[str, Any], SearchRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, _ = default
    assert run(["report", answer["path"], "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["said"]["best"].startswith(f"trial {answer['best']['trial']}: ")
    spent = sum(one["set_up_s"] + one["trained_s"] for one in told["spending"])
    assert math.isclose(spent, answer["timing"]["worker_s"], rel_tol=0.05)
    assert sum(rung["stopped"] for rung in told["rungs"]) == answer["counts"]["reason"]["rung"]
    assert math.isclose(sum(one["share"] for one in told["importances"]), 1, abs_tol=1e-6)
    words = told["next"][0].split()
    assert words[:4] == ["python", "-m", "tuner", "train"]
    assert run(["plan", *words[4:]]) == 0, capsys.readouterr().err
    again = shlex.split(told["reproduce"]["the search"])
    assert again[:4] == ["python", "-m", "tuner", "search"] and "--name" in again


@needs_browser
@pytest.mark.slow  # a browser starts in 2 to 20 s
def test_its_report_in_a_browser(default: tuple[dict[str, Any], SearchRecord], tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    answer, record = default
    page = tmp_path / "report.html"
    assert run(["report", answer["path"], "--out", str(page)]) == 0
    assert page.stat().st_size < 5_000_000
    with browser(tmp_path / "profile") as reader:
        reader.open(page.as_uri())
        until(lambda: reader.driver.execute_script("return document.documentElement.dataset.drawn"))
        asked = [url for url in reader.requests() if not url.startswith(("data:", "about:", "chrome"))]
        assert asked == [page.as_uri()] and reader.complaints() == []
        plots = reader.driver.find_elements("css selector", ".plot")
        assert len(plots) == 6 + len(parameters(record))
        assert all(plot.find_elements("css selector", ".main-svg .trace, .main-svg .bars") for plot in plots)


@pytest.mark.slow  # over NF4 in the default run: packed/test_equal_to_solo.py and test_sft.py
def test_qlora_on_the_cpu(tmp_path: Path) -> None:
    rows = (ROOT / "tuner" / "demo" / "validation.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(rows[:48]))
    shorter = ("--set", "train.max_steps=9", "--set", f"data.validation={tmp_path / 'few.jsonl'}")
    answer, record = search(tmp_path, "--space", "qlora", "--num-trials", "4", *shorter)
    assert sum(answer["counts"]["status"].values()) == 4
    assert {t.setup["quantization"] for t in record.trials.values()} == {"nf4"}
    (computes,) = {t.setup["compute_dtype"] for t in record.trials.values()}
    assert math.isclose(reloaded_loss(answer, computes), answer["best"]["eval_loss"], abs_tol=1e-3)
    assert_study_tells_the_truth(answer, record)
