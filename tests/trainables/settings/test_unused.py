"""Settings that were written and have no effect are told; defaults are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.settings.test_settings import make
from trainables.settings.unused import unused
from trainables.sft import SFT


@pytest.mark.parametrize(
    ("sections", "varied", "told"),
    [
        ({}, [], ""),
        ({"train": {"lora_alpha": 64}}, [], ""),
        ({"train": {"lora_alpha_mode": "2r"}}, [], ""),
        ({"train": {"lora_alpha": 64, "lora_alpha_mode": "2r"}}, [], "train.lora_alpha 64.0 has no effect"),
        ({"train": {"lora_alpha": 64, "lora_alpha_mode": "2r"}}, ["lora_alpha_mode"], ""),
        ({"train": {"lora_alpha": 64, "lora_alpha_mode": "rslora"}}, [], ""),
        ({"train": {"lr_scheduler_type": "constant"}}, [], ""),
        ({"train": {"lr_scheduler_type": "constant", "warmup_ratio": 0}}, [], ""),
        ({"train": {"lr_scheduler_type": "constant", "warmup_ratio": 0.1}}, [], "train.warmup_ratio 0.1 has no effect"),
        ({"train": {"lora_alpha": 32, "lora_alpha_mode": "2r"}}, [], ""),  # the default, as a resume spells it out
        ({"train": {"lr_scheduler_type": "constant"}}, ["warmup_ratio"], "train.warmup_ratio is searched and has no"),
        ({"train": {"lr_scheduler_type": "constant"}}, ["warmup_ratio", "lr_scheduler_type"], ""),
        ({"data": {"validation": "v.jsonl"}}, [], ""),
        ({"data": {"validation": "v.jsonl", "validation_fraction": 0.2}}, [], "data.validation_fraction 0.2"),
        ({"data": {"validation_fraction": 0.2}}, [], ""),
        ({"data": {"format": "messages", "text_field": "body"}}, [], "data.text_field body has no effect"),
        ({"data": {"format": "text", "text_field": "body"}}, [], ""),
        ({"data": {"validation_revision": "main"}}, [], "data.validation_revision main"),
        ({"data": {"split": "test"}}, [], ""),  # rows.jsonl is not there: it may be a dataset of that name
        ({"model": {"tokenizer_revision": "main"}}, [], "model.tokenizer_revision main has no effect"),
        ({"model": {"model_revision": "main"}}, [], ""),
    ],
)
def test_each_is_told_where_nothing_reads_it(sections: dict[str, Any], varied: list[str], told: str) -> None:
    notes = unused(make(**sections), varied)
    assert len(notes) == bool(told)
    assert not told or notes[0].startswith(told)


def test_files_and_folders_have_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    Path("base").mkdir()
    written = {"data": {"split": "test", "revision": "main"}, "model": {"model_revision": "main"}}
    assert len(unused(make(**written), [])) == 3
    written["data"]["validation"] = "some/dataset"  # which has splits and revisions
    assert len(unused(make(**written), [])) == 1
    written["model"]["trust_remote_code"] = True  # which asks for a revision
    assert unused(make(**written), []) == ()
    assert "runs in every worker" in SFT.notes(make(**written), [])[0]
