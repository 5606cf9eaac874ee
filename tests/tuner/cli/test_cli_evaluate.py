"""`tuner evaluate`, on a finished search whose adapters are random."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import finished_run
from tuner.cli import run
from tuner.config import demo_path
from tuner.results.adapters import write_manifest

DEMO = demo_path().parent
JUDGE = """
def judge(prompt, reference, one, other):
    return len(other) - len(one)

def fails(prompt, reference, one, other):
    raise RuntimeError("the service is down")

def empty(prompt, reference, answer):
    return not answer
"""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter on the embedded base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(DEMO / "base")
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(base, config).save_pretrained(folder)
    return folder


@pytest.fixture
def path(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder, whose winner is trial 1; a working folder with a judge and ten rows."""
    path = finished_run(tmp_path / "runs")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (path / "best" / name).write_bytes((adapter / name).read_bytes())
    write_manifest(path / "best", {"name": "first", "trial": 1, "params": {}, "step": 100})
    (tmp_path / "judges.py").write_text(JUDGE)
    rows = (DEMO / "test.jsonl").read_text().splitlines()[:10]
    (tmp_path / "test.jsonl").write_text("".join(f"{row}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return path


def evaluate(*words: str) -> int:
    return run(["evaluate", "first", "--data", "test.jsonl", *words])


def test_base_and_winner_side_by_side(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--max-new-tokens", "6", "--answers", "5", "--judge", "judges:fails", "--metric", "rouge_l",
             "--metric", "judges:empty")  # fmt: skip
    assert evaluate(*words) == 2, "everything is shown, and then that the judge failed"
    out, err = capfd.readouterr()
    heads, loss, perplexity, *_ = out.splitlines()
    assert heads.split("  ")[-1].strip() == "winner (trial 1)" and "base" in heads
    assert loss.startswith("loss per token") and perplexity.startswith("perplexity")
    assert "10 rows, answers to 5; in brackets 95% intervals over rows; test.jsonl" in out
    assert "so     winner beside base: loss per token worse by" in out
    assert "the recipe is not beside the winner: trial 0 has left no adapter" in " ".join(out.split())
    assert "empty " in out and "rouge_l " in out and "reference  " in out
    kept = json.loads((path / "evaluation.json").read_text())
    assert [one["name"] for one in kept["candidates"]] == ["base", "winner"] and len(kept["answered"]) == 5
    assert "RuntimeError: the service is down" in err and "--judge-seconds" in err and "Traceback" not in err


@pytest.mark.slow
def test_json_and_the_folder_of_an_adapter(path: Path, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(adapter), "--data", "test.jsonl", "--max-new-tokens", "4", "--judge", "judges:judge"]
    assert run([*words, "--also", "test.jsonl", "--rows", "4", "--json"]) == 0
    told: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert [one["name"] for one in told["candidates"]] == ["base", "adapter"] and told["rows"] == 4
    base, own = (one["measures"] for one in told["candidates"])
    assert base.keys() == {"loss per token", "exact_match", "rouge_l", "loss on the other rows"}
    assert own["loss per token"]["value"] > base["loss per token"]["value"] > 0
    (compared,) = told["compared"]
    loss = compared["measures"]["loss per token"]
    assert (compared["one"], compared["other"]) == ("adapter", "base")
    assert loss["value"] == pytest.approx(own["loss per token"]["value"] - base["loss per token"]["value"])
    assert loss["low"] <= loss["value"] <= loss["high"]
    assert loss["rows_better"] + loss["rows_worse"] + loss["rows_equal"] == 4
    judged = told["judge"]
    assert judged["asked"] == 4 == judged["one_better"] + judged["other_better"] + judged["equal"]
    assert len(told["answered"]) == 4 and told["answered"][0]["answers"].keys() == {"base", "adapter"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--trials", "2"), "trial 2"),
        (("--trials", "99"), "there is no trial 99"),
        (("--trials", "a"), "'a' is no list of trials"),
        (("--metric", "judges:judge"), "and is called with a prompt, a reference, an answer"),
        (("--metric", "rouge_l", "--metric", "rouge_l"), "two metrics are called 'rouge_l'"),
        (("--judge", "judges:judge", "--judge-seconds", "0"), "expected: a time above 0"),
        (("--no-answers", "--judge", "judges:judge"), "leaves nothing for --metric and --judge"),
        (("--lm-eval", "arc"), "pip install lm_eval"),
    ],
)
def test_what_is_refused_before_anything_is_loaded(
    path: Path, words: tuple[str, ...], what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if "--lm-eval" in words:
        assert importlib.util.find_spec("lm_eval") is None, "not one of the dependencies"
    assert evaluate(*words) == 2
    _, err = capfd.readouterr()
    assert what in err and "Traceback" not in err


def test_neither_a_run_nor_a_folder(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "frist", "--data", "test.jsonl"]) == 2
    assert "there is no run 'frist'" in capfd.readouterr().err
