"""Answers of several slots at once, token for token those of each adapter alone on the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packed.bench import Bench, Make, assignment, drive
from tuner.contract import Evaluation

PARAMS: list[dict[str, Any]] = [
    {"max_steps": 12, "learning_rate": 3e-2},
    {"max_steps": 12, "lora_r": 12, "learning_rate": 1e-2},
    {"max_steps": 12, "target_modules": "attention", "learning_rate": 5e-2},
]


@pytest.fixture(scope="module")
def bench(sft_settings: Make, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    settings = {**sft_settings(), "metrics": {"names": ["exact_match", "rouge_l"], "objective": "rouge_l",
                                              "max_answer_tokens": 8}}  # fmt: skip
    return Bench(settings, tmp_path_factory.mktemp("answering"))


def test_answers_are_those_of_each_adapter_alone(bench: Bench, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trainables.answers import sample
    from trainables.answers.generating import generate
    from trainables.packed.answering import answers

    engine = bench.engine(3)
    for slot, params in enumerate(PARAMS):
        engine.join(slot, assignment(tmp_path / str(slot), params, seed=slot, points=(1.0,)))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    prompts = [prompt.ids for prompt in sample.read(bench.preparation).prompts]
    assert len(prompts) == 12 and len({len(ids) for ids in prompts}) > 3
    how: dict[str, Any] = {"stops": [0], "padding": 1, "most": 10}
    found = answers(engine.packed, [0, 1, 2], prompts, **how)
    assert answers(engine.packed, [0, 2], prompts, **how) == [found[0], found[2]]
    for slot, own in enumerate(found):
        (last,) = curves[slot]
        base = AutoModelForCausalLM.from_pretrained(bench.settings["model"]["model_name_or_path"])
        alone = PeftModel.from_pretrained(base, str(last.adapter)).eval()
        assert own == [generate(alone, [prompt], **how).ids[0] for prompt in prompts]
    assert len({str(own) for own in found}) == 3, "each slot answers with its own adapter"
    # the engine trains on as before
    engine.join(0, assignment(tmp_path / "next", PARAMS[1], seed=1, points=(1.0,)))
    again: dict[int, list[Evaluation]] = {}
    drive(engine, again)
    assert (
        again[0][0].eval_loss == curves[1][0].eval_loss
        and again[0][0].metrics["rouge_l"] == curves[1][0].metrics["rouge_l"]
    )


def test_packed_and_solo_trials_have_the_same_metrics(bench: Bench, tmp_path: Path) -> None:
    engine = bench.engine(2)
    # at lower rates rounding does not grow, and 60 steps are enough to answer with words
    longer: list[dict[str, Any]] = [{"max_steps": 60, "learning_rate": 5e-3}, {"max_steps": 60, "learning_rate": 4e-3}]
    for slot, params in enumerate(longer):
        engine.join(slot, assignment(tmp_path / str(slot), params, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for slot, params in enumerate(longer):
        solo = bench.solo(params, seed=slot)
        assert [set(e.metrics) for e in solo] == [set(e.metrics) for e in curves[slot]]
        assert set(solo[0].metrics) == {"eval_loss"}, "only at the end"
        ours, theirs = curves[slot][-1].metrics, solo[-1].metrics
        assert ours["rouge_l"] == pytest.approx(theirs["rouge_l"]) and ours["answers"] == theirs["answers"]
        assert 0 < (theirs["answers_share"] or 0) < 1 and (theirs["rouge_l"] or 0) > 0


@pytest.mark.slow
def test_the_adapter_of_the_last_step_is_kept_where_its_answers_decide(bench: Bench, tmp_path: Path) -> None:
    """36 rows are learned by heart in so many steps, and the validation loss rises."""
    params = {"max_steps": 120, "learning_rate": 1e-2, "lora_r": 16, "lr_scheduler_type": "constant_with_warmup"}
    engine = bench.engine(1)
    engine.join(0, assignment(tmp_path / "0", params, seed=0))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for curve in (curves[0], bench.solo(params, seed=0)):
        losses = [evaluation.eval_loss or 0.0 for evaluation in curve]
        assert losses[-1] > min(losses) and curve[-1].adapter is not None
