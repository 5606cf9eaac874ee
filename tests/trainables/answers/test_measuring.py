"""What a trial is measured by at its end: the same rows for every trial, within a share of its time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import completion_rows, text_rows, write_jsonl
from trainables.answers import sample
from trainables.answers.measuring import Measurer
from trainables.data import tokenizers
from trainables.settings import Settings
from trainables.sft import SFT
from tuner.contract import EVAL_LOSS, InputError, Preparation

Make = Callable[..., dict[str, Any]]


def prepared(sft_settings: Make, folder: Path, names: Sequence[str], **more: Any) -> tuple[Settings, Preparation]:
    rows = write_jsonl(folder / "rows.jsonl", completion_rows(80))
    base = sft_settings(data={"train": str(rows), "validation_fraction": 0.5})
    settings = Settings.model_validate({**base, "metrics": {"names": list(names), **more}})
    return settings, SFT.prepare(settings.model_dump(mode="json"), folder / "cache")


def measurer(settings: Settings, preparation: Preparation) -> Measurer:
    return Measurer(settings, preparation, tokenizers.load(settings.model, settings.data)[0])


def echo(preparation: Preparation, settings: Settings, seconds: float = 0.0) -> Any:
    """Answers each prompt with the row's own answer; takes `seconds` for each."""
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    known = {tuple(p.ids): p.reference for p in sample.read(preparation).prompts}

    def generate(prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        time.sleep(seconds * len(prompts))
        return [[list(tokenizer(known[tuple(prompt)])["input_ids"]) for prompt in prompts]]

    return generate


def test_the_same_rows_for_all(sft_settings: Make, tmp_path: Path) -> None:
    settings, preparation = prepared(sft_settings, tmp_path, ["exact_match", "regex:cat|dog"], rows=30)
    (found,) = measurer(settings, preparation).measure(echo(preparation, settings), 1, 100.0)
    assert {**found, "answers_share": 0.0} == {"exact_match": 1.0, "regex": found["regex"], "answers": 30.0,
                                                "answers_share": 0.0}  # fmt: skip
    held_out = sample.read(preparation)
    assert len(held_out.prompts) == 40 and 16 < held_out.most_tokens <= 256, "every validation row has an answer"
    without = Settings.model_validate({**settings.model_dump(), "metrics": {}})
    plain = SFT.prepare(without.model_dump(mode="json"), tmp_path / "cache")
    assert plain.folder != preparation.folder and plain.facts["validation"] == preparation.facts["validation"]


def test_the_first_trial_decides_how_many_rows_fit_into_its_time(sft_settings: Make, tmp_path: Path) -> None:
    settings, preparation = prepared(sft_settings, tmp_path, ["exact_match"])
    slow = echo(preparation, settings, seconds=0.005)
    (first,) = measurer(settings, preparation).measure(slow, 1, 1.2)
    assert 16 < (first["answers"] or 0) <= 24, "a tenth of 1.2 s, at 5 ms a row"
    (later,) = measurer(settings, preparation).measure(echo(preparation, settings), 1, 1000.0)
    assert later["answers"] == first["answers"], "another worker takes as many"
    assert 0.05 < (first["answers_share"] or 0) < 0.12


def test_a_trial_too_short_for_answers_has_a_few(sft_settings: Make, tmp_path: Path) -> None:
    settings, preparation = prepared(sft_settings, tmp_path, ["exact_match"])
    (found,) = measurer(settings, preparation).measure(echo(preparation, settings, seconds=0.002), 1, 0.0)
    assert found["answers"] == 8.0


def test_a_metric_that_fails_is_missing_and_says_why(
    sft_settings: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, preparation = prepared(sft_settings, tmp_path, ["json_fields", "rouge_l"])
    with caplog.at_level(logging.WARNING):
        (found,) = measurer(settings, preparation).measure(echo(preparation, settings), 1, 100.0)
    assert found["json_fields"] is None and found["rouge_l"] == 1.0
    assert (
        "the metric json_fields is missing" in caplog.text
        and "ValueError: the row's own answer has no JSON" in caplog.text
    )


def test_answers_that_cannot_be_generated_end_no_trial(
    sft_settings: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, preparation = prepared(sft_settings, tmp_path, ["rouge_l"])

    def fails(prompts: Any) -> Any:
        raise IndexError("no such cache")

    with caplog.at_level(logging.WARNING):
        assert measurer(settings, preparation).measure(fails, 2, 100.0) == [{"rouge_l": None}, {"rouge_l": None}]
    assert "IndexError: no such cache" in caplog.text and "Traceback" in caplog.text


def test_rows_without_answers_are_refused(sft_settings: Make, tmp_path: Path) -> None:
    rows = str(write_jsonl(tmp_path / "rows.jsonl", text_rows(10)))
    settings = {**sft_settings(data={"train": rows}), "metrics": {"names": ["rouge_l"]}}
    with pytest.raises(InputError, match="no validation row has a prompt and an answer: the rows are text"):
        SFT.prepare(settings, tmp_path / "cache")


def test_objectives_and_refusals(sft_settings: Make) -> None:
    asked = {**sft_settings(), "metrics": ["exact_match", "rouge_l"]}
    settings = Settings.model_validate(asked)
    assert [o.name for o in SFT.objectives(settings)] == ["eval_loss", "exact_match", "rouge_l"]
    assert SFT.objectives(settings)[0] == EVAL_LOSS and SFT.objectives(Settings(**sft_settings())) == (EVAL_LOSS,)
    settings = Settings.model_validate(
        {**asked, "metrics": {"names": ["exact_match", "rouge_l"], "objective": "rouge_l"}}
    )
    first, second, third = SFT.objectives(settings)
    assert (first.name, first.direction, first.measured) == ("rouge_l", "maximize", "end")
    assert (second, third.name) == (EVAL_LOSS, "exact_match")
    assert any("ranked by rouge_l, which a trial has at its end" in note for note in SFT.notes(settings, ()))
    for wrong, what in (
        ({"names": ["rouge_l"], "objective": "chrf"}, "objective is 'chrf', and names has rouge_l"),
        ({"rows": 5}, "without names, nothing is measured"),
        ({"names": ["regex:a", "regex:b"]}, "two metrics have the same name"),
    ):
        with pytest.raises(ValidationError, match=what):
            Settings.model_validate({**asked, "metrics": wrong})
    with pytest.raises(InputError, match="no metric 'bleu'"):
        SFT.notes(Settings.model_validate({**asked, "metrics": ["bleu"]}), ())
    json.dumps(settings.model_dump(mode="json"))
