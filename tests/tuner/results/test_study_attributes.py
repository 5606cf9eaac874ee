"""What a search and its trials say of themselves in the study: from settings of any program, and from the ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.config import dump_resolved, load_experiment
from tuner.contract import Budget, Reason, Verdict
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord
from tuner.results.study_attributes import search_attributes, standing, state_of, trial_attributes


def test_a_search_with_the_defaults_says_all_of_it() -> None:
    settings = dump_resolved(load_experiment())
    told = search_attributes(settings, searches.finished().record, searches.RECIPE_PARAMS)
    assert list(told) == ["state", "model", "data", "recipe", "budget", "objective", "search"]
    assert told["model"].startswith("model_name_or_path ") and "demo/base, dtype float32" in told["model"]
    assert told["recipe"] == "learning_rate 0.0003, lora_r 16, lora_alpha_mode fixed, effective_batch_size 16"


def test_a_program_of_ones_own_says_what_it_has() -> None:
    record = searches.finished().record
    told = search_attributes({"weights": 3, "model": "a string", "search": {"seed": 7}}, record, None)
    assert told == {
        "state": "running",
        "data": "train: 3,912 rows, 402,113 tokens; validation: 871 rows, 90,417 tokens",
        "budget": "8 trials of at most 100 steps",
        "objective": "eval_loss (validation loss), less is better",
        "search": "seed 7",
    }


def test_a_quantized_base_at_a_revision_and_epochs() -> None:
    settings = {
        "model": {"model_name_or_path": "org/base", "model_revision": "abc", "quantization": {"kind": "nf4"}},
        "data": {"train": "org/rows", "validation": None, "validation_fraction": 0.1},
        "train": {"max_steps": None, "num_train_epochs": 3.0},
        "search": {"num_trials": 5},
    }
    recipe = {"target_modules": ["q_proj", "v_proj"], "lora_r": None}
    told = search_attributes(settings, SearchRecord(), recipe, Budget(steps=None, epochs=3.0))
    assert told["model"] == "model_name_or_path org/base, model_revision abc, quantization nf4"
    assert told["data"] == "train org/rows, validation_fraction 0.1"
    assert told["budget"] == "5 trials of at most 3 epochs" and told["recipe"] == "target_modules q_proj+v_proj"


def test_secrets_are_taken_out() -> None:
    settings = {"model": {"model_name_or_path": "https://user:hunter2hunter2@example.com/base"}}
    assert "hunter2" not in str(search_attributes(settings, SearchRecord(), {}))


@pytest.mark.parametrize(
    ("changes", "driven", "expected"),
    [
        ({}, True, "running"),
        ({}, False, "not finished, and no driver on this machine has it (a resume goes on)"),
        ({"paused": "you asked for it"}, True, "paused (you asked for it)"),
        ({"finished": True, "outcome": "stopped"}, False, "stopped"),
        ({"finished": True, "outcome": "halted", "halt_message": "no rows"}, False, "halted (no rows)"),
    ],
)
def test_the_state(changes: dict[str, Any], driven: bool, expected: str) -> None:
    record = replace(searches.running().record, **changes)
    assert standing(record, driven=driven) == expected
    assert state_of(record, expected).startswith(f"{expected}: 5 of 16 trials ended")


def test_the_adapters_place_is_where_it_is_now(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    tape = searches.finished()
    for event in tape.events:
        if event.step and event.number in (0, 1):
            event.details["adapter"] = f"adapters/{event.number:04d}/adapter"  # type: ignore[index]
    record = tape.record
    (folder.trial(1) / "adapter").mkdir(parents=True)

    def adapter(number: int) -> Any:
        return trial_attributes(folder, record, record.trials[number])["adapter"]

    assert adapter(0) == "not in the run folder: those of the best trials are kept (run.keep_adapters)"
    assert adapter(1) == "adapters/0001/adapter" and adapter(2) == "none was saved"
    folder.best.mkdir()
    assert adapter(1) == "best"


def test_a_trial_under_way_has_no_reason_and_one_that_is_run_again_says_so(tmp_path: Path) -> None:
    tape = searches.Tape()
    tape.start(0, searches.RECIPE_PARAMS)
    told = trial_attributes(RunFolder(tmp_path), record := tape.record, record.trials[0])
    assert told["ending"] == "running" and "reason" not in told and "log" not in told
    tape.retry(0, Reason.INFRASTRUCTURE, message="its node is gone")
    tape.start(0, searches.RECIPE_PARAMS)
    tape.end(0, Verdict(Reason.OUT_OF_MEMORY, "no room", "lower it"))
    (tmp_path / "logs").mkdir()
    RunFolder(tmp_path).log(0).write_text("x")
    told = trial_attributes(RunFolder(tmp_path), record := tape.record, record.trials[0])
    assert told["reason"] == "out_of_memory" and told["attempt"] == 2
    assert told["remedy"] == "lower it" and told["log"] == "logs/trial-0000.log"
