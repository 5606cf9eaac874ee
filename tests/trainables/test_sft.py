"""Trials of the real SFTTrainer on a tiny model, on the CPU."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.models.base import compute_dtype
from trainables.settings import NF4
from trainables.sft import SFT
from tuner.contract import (
    ALIVE,
    STATE,
    SUMS,
    Assignment,
    Budget,
    Evaluation,
    Fault,
    InputError,
    Preparation,
    Program,
    Reason,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., dict[str, Any]]
POINTS = (0.25, 0.5, 1.0)


def assignment(folder: Path, params: dict[str, Any] | None = None, number: int = 0, seed: int = 7) -> Assignment:
    place = folder / f"trial-{number}"
    place.mkdir(parents=True, exist_ok=True)
    return Assignment(number, params or {}, seed, POINTS, str(place))


def run(program: SFT, task: Assignment) -> list[Evaluation]:
    """Runs a trial to its end; gives its evaluations."""
    program.start(task)
    curve = []
    while not curve or not curve[-1].done:
        curve.append(program.step())
    program.stop()
    return curve


def losses(curve: list[Evaluation]) -> list[tuple[float | None, float | None]]:
    return [(evaluation.eval_loss, evaluation.train_loss) for evaluation in curve]


def test_it_is_a_program() -> None:
    assert issubclass(SFT, Program)


def test_budget() -> None:
    minimal = {"model": {"model_name_or_path": "x"}, "data": {"train": "y"}}
    assert SFT.budget(minimal) == Budget(None, 1.0)
    assert SFT.budget({**minimal, "train": {"max_steps": 9}}) == Budget(9, None)


def test_a_trial(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    setup = trials.start(assignment(tmp_path))
    assert setup.max_steps == 8
    details = setup.details
    assert (details["micro_batch"], details["accumulation"], details["warmup_steps"]) == (8, 1, 1)
    assert (details["adapted_modules"], details["lora_alpha"], details["dtype"]) == (14, 32, "float32")
    assert 0 < setup.trainable_parameters < setup.total_parameters

    curve = [trials.step() for _ in range(3)]
    assert [evaluation.step for evaluation in curve] == [2, 4, 8]
    assert curve[-1].done and curve[-1].max_steps == 8
    found = [evaluation.eval_loss for evaluation in curve]
    assert all(loss is not None and math.isfinite(loss) for loss in found)
    assert found[-1] < found[0]  # type: ignore[operator]
    assert all(evaluation.train_loss and evaluation.memory is None for evaluation in curve)
    assert 0 < curve[0].tokens < curve[1].tokens < curve[2].tokens
    assert 0 < curve[0].seconds < curve[2].seconds

    adapter = Path(curve[-1].adapter or "")
    assert adapter == tmp_path / "trial-0" / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", SUMS}
    assert {path.name for path in (tmp_path / "trial-0").iterdir()} == {"adapter", STATE}
    assert [path.name for path in (tmp_path / "trial-0" / STATE).iterdir()] == [ALIVE], "too short for a state"
    trials.stop()
    trials.stop()


def test_tokens_are_those_of_the_rows_without_padding(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program(train={"max_steps": None, "num_train_epochs": 1.0, "effective_batch_size": 5})
    assert run(trials, assignment(tmp_path))[-1].tokens == trials.preparation.tokens


def test_a_trial_stopped_between_evaluations(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    trials.start(assignment(tmp_path, number=0))
    trials.stop()
    trials.start(assignment(tmp_path, number=1))
    first = trials.step()
    trials.stop()
    curve = run(trials, assignment(tmp_path, number=2))
    assert curve[0].eval_loss == first.eval_loss
    trials.start(assignment(tmp_path, number=3))
    with pytest.raises(RuntimeError, match="before start"):
        trials.stop()
        trials.step()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_base_outlives_its_trials(
    program: Callable[..., SFT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    """Weights and module tree stay, and a trial does not feel which came before it."""
    import torch

    monkeypatch.setenv("TUNER_CHECK_BASE", "1")
    last = {"learning_rate": 1e-3, "lora_alpha_mode": "rslora", "lora_dropout": 0.1, "target_modules": "attention"}
    model = {"quantization": quantization}
    alone = losses(run(program(model=model), assignment(tmp_path, last, number=9)))

    trials = program(model=model)
    resident = trials.resident
    assert resident is not None
    tree, checksum, forward = resident.tree(), resident.checksum(), resident.model.forward
    recipe = trials._settings
    trials._settings = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"gradient_checkpointing": True})}
    )
    run(trials, assignment(tmp_path, {"lora_r": 8}, number=0, seed=1))
    trials._settings = recipe
    run(trials, assignment(tmp_path, {"use_dora": True, "effective_batch_size": 12}, number=1, seed=2))
    random.random(), torch.rand(3)  # what ran before in the worker
    after = losses(run(trials, assignment(tmp_path, last, number=2)))

    assert trials.resident is resident
    assert resident.tree() == tree
    assert resident.checksum() == checksum
    assert resident.model.forward == forward
    assert after == alone


def test_another_seed_is_another_trial(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    a, b, c = (run(trials, assignment(tmp_path, number=n, seed=seed)) for n, seed in enumerate((1, 2, 1)))
    assert losses(a) == losses(c) != losses(b)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_init_that_changes_the_base_gets_a_fresh_one(program: Callable[..., SFT], tmp_path: Path, init: str) -> None:
    trials = program()
    assert trials.resident is not None
    checksum, old = trials.resident.checksum(), weakref.ref(trials.resident.model)
    before = losses(run(trials, assignment(tmp_path, number=0)))
    run(trials, assignment(tmp_path, {"init_lora_weights": init}, number=1))
    gc.collect()
    assert old() is None  # or the GPU would hold two
    assert losses(run(trials, assignment(tmp_path, number=2))) == before
    assert trials.resident.checksum() == checksum


def fresh_loss(settings: dict[str, Any], preparation: Preparation, adapter: str, folder: Path) -> float:
    """The validation loss that plain transformers, peft and trl measure."""
    import datasets
    import torch
    import transformers
    from peft import PeftModel
    from trl import SFTConfig, SFTTrainer

    quantized = settings["model"].get("quantization") == "nf4"
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(NF4()),
    )  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_pretrained(
        named_base(adapter), dtype=torch.float32, quantization_config=config if quantized else None
    )
    for module in base.modules():  # DoRA's norms are wrong over weights that bitsandbytes repacked (AVX512-BF16)
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    validation = datasets.load_from_disk(f"{preparation.folder}/validation")
    trainer = SFTTrainer(
        model=PeftModel.from_pretrained(base, adapter),
        args=SFTConfig(
            output_dir=str(folder / "fresh"),
            per_device_eval_batch_size=8,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=validation,
        eval_dataset=validation,
        processing_class=transformers.AutoTokenizer.from_pretrained(settings["model"]["model_name_or_path"]),
    )
    return trainer.evaluate()["eval_loss"]


def named_base(adapter: str) -> str:
    """The base that the adapter names."""
    from peft import PeftConfig

    return str(PeftConfig.from_pretrained(adapter).base_model_name_or_path)


@pytest.mark.parametrize(
    ("params", "quantization"),
    [
        ({}, "none"),
        ({}, "nf4"),
        ({"lora_alpha_mode": "rslora"}, "none"),
        ({"use_dora": True}, "none"),
        ({"use_dora": True}, "nf4"),
        ({"init_lora_weights": "pissa"}, "none"),
        ({"init_lora_weights": "olora"}, "none"),
        ({"init_lora_weights": "orthogonal"}, "none"),
        ({"target_modules": "mlp", "optim": "adafactor"}, "none"),
    ],
    ids=str,
)
def test_the_saved_adapter_gives_the_reported_loss(
    program: Callable[..., SFT], sft_settings: Make, tmp_path: Path, params: dict[str, Any], quantization: str
) -> None:
    trials = program(model={"quantization": quantization})
    curve = run(trials, assignment(tmp_path, params))
    best = min(curve, key=lambda evaluation: evaluation.eval_loss or math.inf)
    assert best.adapter is not None
    settings = sft_settings(model={"quantization": quantization})
    assert named_base(best.adapter) == settings["model"]["model_name_or_path"]
    assert fresh_loss(settings, trials.preparation, best.adapter, tmp_path) == pytest.approx(best.eval_loss, abs=1e-3)


def test_merge_gives_a_model_of_its_own(program: Callable[..., SFT], sft_settings: Make, tmp_path: Path) -> None:
    import torch
    import transformers
    from peft import PeftModel

    curve = run(program(), assignment(tmp_path))
    SFT.merge(sft_settings(), curve[-1].adapter or "", tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    ids = torch.arange(5, 25).view(1, -1)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = transformers.AutoModelForCausalLM.from_pretrained(sft_settings()["model"]["model_name_or_path"])
    adapted = PeftModel.from_pretrained(base, curve[-1].adapter or "").eval()
    torch.testing.assert_close(merged(ids).logits, adapted(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")


def test_a_merge_of_an_adapter_that_does_not_fit(
    program: Callable[..., SFT], sft_settings: Make, tmp_path: Path
) -> None:
    """PEFT leaves out what finds no place, with a warning."""
    from transformers import AutoConfig, AutoModelForCausalLM

    curve = run(program(), assignment(tmp_path))
    settings = sft_settings()
    fewer = AutoConfig.from_pretrained(settings["model"]["model_name_or_path"], num_hidden_layers=1)
    AutoModelForCausalLM.from_config(fewer).save_pretrained(tmp_path / "fewer")
    settings["model"] = {"model_name_or_path": str(tmp_path / "fewer")}
    with pytest.raises(InputError, match=r"14 of its weights do not belong to this base: .*layers\.1\."):
        SFT.merge(settings, curve[-1].adapter or "", tmp_path / "merged")


def test_a_base_that_is_stored_in_4_bits_trains_and_merges(
    program: Callable[..., SFT], sft_settings: Make, tiny_model: Path, tmp_path: Path
) -> None:
    """Equal to the same base quantized as it is loaded; merged into weights that are expanded."""
    import shutil

    import torch
    import transformers

    stored = Path(shutil.copytree(tiny_model, tmp_path / "stored"))
    (stored / "model.safetensors").unlink()
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    transformers.AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=how).save_pretrained(stored)
    nf4 = {"kind": "nf4", "compute_dtype": "float32"}
    model = {"model_name_or_path": str(stored), "quantization": nf4, "tokenizer_name_or_path": str(tiny_model)}
    curve = run(program(model=model), assignment(tmp_path))
    loaded = run(program(model={"quantization": nf4}), assignment(tmp_path, number=1))
    assert [e.eval_loss for e in curve] == pytest.approx([e.eval_loss for e in loaded], abs=1e-6)

    SFT.merge(sft_settings(model=model), curve[-1].adapter or "", tmp_path / "merged")
    merged, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert getattr(merged.config, "quantization_config", None) is None
    assert {p.dtype for p in merged.parameters()} == {torch.float32}


def test_a_diverging_trial_is_told_honestly(program: Callable[..., SFT], tmp_path: Path) -> None:
    curve = run(program(train={"max_grad_norm": 0.0}), assignment(tmp_path, {"learning_rate": 10.0}))
    assert len(curve) == 3


def test_a_loss_that_is_not_a_number_is_passed_up(program: Callable[..., SFT], tmp_path: Path) -> None:
    import torch

    trials = program()
    trials.start(assignment(tmp_path))
    assert trials.trial is not None
    first = trials.step()
    with torch.no_grad():
        next(p for p in trials.trial.trainer.model.parameters() if p.requires_grad).fill_(math.nan)
    second = trials.step()
    assert second.eval_loss is not None and math.isnan(second.eval_loss)
    assert second.train_loss is not None and math.isnan(second.train_loss)
    assert first.adapter is not None and second.adapter is None
    trials.stop()


def test_a_missing_loss_is_none(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    trials.start(assignment(tmp_path))
    assert trials.trial is not None
    trials.step()
    trials.trial.trainer.eval_dataset = trials.trial.trainer.eval_dataset.select([])
    evaluation = trials.step()
    assert (evaluation.eval_loss, evaluation.adapter) == (None, None)
    trials.stop()


def test_targets_that_match_nothing(program: Callable[..., SFT], tmp_path: Path) -> None:
    """Set for all trials it is a fault of the set-up; drawn by one it ends that one."""
    for own, params, reason in (("all-linear", {"target_modules": ["query"]}, Reason.ERROR),
                                (["query"], {}, Reason.CONFIG)):  # fmt: skip
        trials = program(train={"target_modules": own})
        with pytest.raises(Fault, match="matches nothing") as caught:
            trials.start(assignment(tmp_path, params))
        assert caught.value.reason is reason
        trials.stop()
        if reason is Reason.ERROR:
            assert len(run(trials, assignment(tmp_path, number=1))) == 3


def test_out_of_memory_is_a_fault_and_the_worker_goes_on(program: Callable[..., SFT], tmp_path: Path) -> None:
    import torch

    trials = program()
    trials.start(assignment(tmp_path, number=0))
    assert trials.trial is not None
    trainer = trials.trial.trainer
    step = trainer.training_step

    def full(*args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 3:
            torch.empty(1 << 50)  # a petabyte
        return step(*args, **kwargs)

    trainer.training_step = full
    trials.step()
    with pytest.raises(Fault) as caught:
        trials.step()
    assert caught.value.reason is Reason.OUT_OF_MEMORY and "per_device_train_batch_size" in caught.value.remedy
    trials.stop()
    assert len(run(trials, assignment(tmp_path, number=1))) == 3


def test_an_error_in_the_loop_keeps_its_traceback(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    trials.start(assignment(tmp_path))
    assert trials.trial is not None

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("in the middle")

    trials.trial.trainer.training_step = broken
    with pytest.raises(ZeroDivisionError, match="in the middle") as caught:
        trials.step()
    assert caught.traceback[-1].name == "broken"
    trials.stop()


def test_a_parameter_that_cannot_be_searched(program: Callable[..., SFT], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be searched"):
        program().start(assignment(tmp_path, {"max_length": 8}))


def test_adapters_do_not_pile_up_in_memory(program: Callable[..., SFT], tmp_path: Path) -> None:
    trials = program()
    trials.start(assignment(tmp_path))
    assert trials.trial is not None
    gone = [weakref.ref(thing) for thing in (trials.trial, trials.trial.trainer, trials.trial.trainer.model)]
    trials.step()
    trials.stop()
    assert [reference() for reference in gone] == [None, None, None]
