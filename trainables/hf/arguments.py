"""A trial's SFTConfig."""

from __future__ import annotations

from typing import Any

from trainables.settings import Settings, steps


def sft_config(settings: Settings, max_steps: int, seed: int, folder: str, *, gpu: bool, autocast: bool) -> Any:
    """TRL's arguments of a trial of `max_steps` optimizer steps.

    Evaluation, logging and saving are driven by callbacks, so their own schedules are off. The rows come tokenized
    and cut, so preparation is skipped and `max_length` is None.
    """
    from trl import SFTConfig

    train = settings.train
    shape = steps.batch(train.effective_batch_size, train.per_device_train_batch_size)
    return SFTConfig(
        output_dir=folder,
        max_steps=max_steps,
        per_device_train_batch_size=shape.micro,
        gradient_accumulation_steps=shape.accumulation,
        per_device_eval_batch_size=train.per_device_eval_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=steps.warmup_steps(train.warmup_ratio, max_steps),
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        gradient_checkpointing=train.gradient_checkpointing,
        bf16=autocast,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        dataloader_num_workers=0,
        seed=seed,
        data_seed=seed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="no",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        # Both would be hidden otherwise: a NaN in the training loss, and one among the validation batches
        logging_nan_inf_filter=False,
    )
