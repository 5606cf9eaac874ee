"""Trainers broken by hand, each in a way that has happened to people: each must end in a Fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import completion_rows
from tests.trainables.models import composites
from trainables.models import base
from trainables.settings import ModelSettings
from tuner.contract import Fault, Reason

Build = Callable[..., Any]


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture
def load(tiny_model: Path) -> Build:
    def make(quantization: str = "none") -> Any:
        return base.load(ModelSettings(model_name_or_path=str(tiny_model), quantization=quantization))

    return make


@pytest.fixture
def build(tiny_model: Path, tmp_path: Path) -> Build:
    """Makes a real SFTTrainer with the guard, for a model that a test may have broken."""

    def make(model: Any, peft_config: Any = None, evaluate: Any = None, **arguments: Any) -> Any:
        import datasets
        from transformers import AutoTokenizer
        from trl import SFTConfig, SFTTrainer

        from trainables.hf.frozen_guard import FrozenGuard

        rows = datasets.Dataset.from_list(completion_rows(16))
        settings = {
            "max_steps": 6, "learning_rate": 1e-2, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no",
            "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
            "disable_tqdm": True, **arguments,
        }  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=str(tmp_path / "out"), **settings),
            train_dataset=rows,
            eval_dataset=rows.select(range(8)) if evaluate is None else evaluate,
            processing_class=AutoTokenizer.from_pretrained(tiny_model),
            peft_config=peft_config,
        )
        trainer.add_callback(FrozenGuard(trainer))
        return trainer

    return make


def fault_of(trainer: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        trainer.train()
    return caught.value


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_a_sound_trainer_is_left_alone(load: Build, build: Build, schedule: str) -> None:
    """Warm-up begins and decay ends with a learning rate of 0: no alarm."""
    trainer = build(load(), lora(), lr_scheduler_type=schedule, warmup_steps=2, eval_steps=1)
    assert trainer.train().global_step == 6


def test_a_model_frozen_by_hand(load: Build, build: Build) -> None:
    trainer = build(load(), lora())
    trainer.model.requires_grad_(False)
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "none is trainable" in fault.message and fault.remedy


def test_an_adapter_loaded_without_is_trainable(load: Build, build: Build, tmp_path: Path) -> None:
    from peft import PeftModel, get_peft_model

    get_peft_model(load(), lora()).save_pretrained(tmp_path / "adapter")
    fault = fault_of(build(PeftModel.from_pretrained(load(), tmp_path / "adapter")))
    assert fault.reason is Reason.FROZEN and "is_trainable=True" in fault.remedy


def test_an_adapter_loaded_with_is_trainable_is_sound(load: Build, build: Build, tmp_path: Path) -> None:
    from peft import PeftModel, get_peft_model

    get_peft_model(load(), lora()).save_pretrained(tmp_path / "adapter")
    build(PeftModel.from_pretrained(load(), tmp_path / "adapter", is_trainable=True)).train()


def test_prepared_by_hand_and_prepared_again(load: Build, build: Build) -> None:
    """prepare_model_for_kbit_training and get_peft_model by hand, and the trainer's own preparation on top."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    model = get_peft_model(prepare_model_for_kbit_training(load("nf4"), use_gradient_checkpointing=False), lora())
    trainer = build(model)
    prepare_model_for_kbit_training(trainer.model, use_gradient_checkpointing=False)
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "prepare_model_for_kbit_training" in fault.remedy


def test_weights_that_are_not_in_the_optimizer(load: Build, build: Build) -> None:
    import torch

    trainer = build(load(), lora())
    first = next(p for p in trainer.model.parameters() if p.requires_grad)
    trainer.optimizer = torch.optim.AdamW([first], lr=1e-2)
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "are not in the optimizer" in fault.message


def test_an_optimizer_over_copies_moves_nothing(load: Build, build: Build) -> None:
    """In the optimizer by name, yet the gradients never arrive: weights do not move."""
    trainer = build(load(), lora())
    step = trainer.create_optimizer

    def broken(*args: Any) -> Any:
        optimizer = step(*args)
        optimizer.step = lambda *a, **k: None
        return optimizer

    trainer.create_optimizer = broken
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "no trainable weight moved in 3 optimizer steps" in fault.message


def test_a_part_that_no_row_reaches_is_named(build: Build) -> None:
    """The adapter on the language part learns, so the loss falls; that on the tower for images never moves."""
    fault = fault_of(build(composites.build("gemma3"), lora()))
    assert fault.reason is Reason.FROZEN and "train.target_modules" in fault.remedy
    assert fault.message.startswith("no trainable weight of vision: attention and vision: mlp moved")


def test_a_part_whose_gradient_is_zero_is_named(load: Build, build: Build) -> None:
    trainer = build(load(), lora())
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and ".self_attn." in name:
            parameter.register_hook(lambda gradient: gradient * 0)
    assert fault_of(trainer).message.startswith("no trainable weight of language: attention moved in 3 optimizer steps")


def test_frozen_after_the_first_evaluation(load: Build, build: Build) -> None:
    from transformers import TrainerCallback

    class Freeze(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            if state.global_step == 2:
                optimizer.step = lambda *a, **k: None

    trainer = build(load(), lora(), lr_scheduler_type="constant")
    trainer.add_callback(Freeze())
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "equal to the last digit" in fault.message


def test_an_adapter_without_effect(load: Build, build: Build) -> None:
    """Weights move, but the validation never sees the adapter."""
    trainer = build(load(), lora(), lr_scheduler_type="constant")
    predict = trainer.prediction_step

    def blind(*args: Any, **kwargs: Any) -> Any:
        with trainer.model.disable_adapter():
            return predict(*args, **kwargs)

    trainer.prediction_step = blind
    fault = fault_of(trainer)
    assert fault.reason is Reason.FROZEN and "no effect on the loss" in fault.message


def test_blown_up_is_not_frozen(load: Build, build: Build) -> None:
    """A loss that repeats because the weights are huge is the driver's to judge, and must not end the search."""
    import torch
    from transformers import TrainerCallback

    class BlowUp(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.fill_(1e6)

    trainer = build(load(), lora(), lr_scheduler_type="constant")
    trainer.add_callback(BlowUp())
    assert trainer.train().global_step == 6


def test_a_loss_that_is_not_a_number_is_not_frozen(load: Build, build: Build) -> None:
    trainer = build(load(), lora(), learning_rate=1e30, max_grad_norm=0.0, logging_nan_inf_filter=False)
    assert trainer.train().global_step == 6


def masked(number: int) -> Any:
    import datasets

    return datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [-100] * 3}] * number)


def test_labels_all_masked(load: Build, build: Build) -> None:
    trainer = build(load(), lora(), evaluate=masked(4), max_length=None)
    fault = fault_of(trainer)
    assert fault.reason is Reason.DATA and "the validation set has no label token" in fault.message


def test_the_only_label_is_the_first_token_which_nothing_predicts(load: Build, build: Build) -> None:
    import datasets

    one = datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [5, -100, -100]}] * 4)
    fault = fault_of(build(load(), lora(), evaluate=one))
    assert fault.reason is Reason.DATA


def test_an_evaluation_set_that_filtering_empties(load: Build, build: Build) -> None:
    import datasets

    rows = [{"prompt": "cat " * 100, "completion": " dog"}] * 4
    fault = fault_of(build(load(), lora(), evaluate=datasets.Dataset.from_list(rows), max_length=32))
    assert fault.reason is Reason.DATA and "the validation set is empty" in fault.message
