"""A trial's SFTConfig."""

from __future__ import annotations

from typing import Any

from trainables.settings import Settings, steps
from tuner.contract import ALONE, Group

_FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
"""accelerate's words for it: a layer is put together where it is needed, and taken apart again."""


def sft_config(
    settings: Settings, max_steps: int, seed: int, folder: str, *, gpu: bool, autocast: bool, group: Group = ALONE
) -> Any:
    """TRL's arguments of a trial of `max_steps` optimizer steps.

    Evaluation, logging and saving are driven by callbacks, so their own schedules are off. The rows come tokenized
    and cut, so preparation is skipped and `max_length` is None. group: the processes that share the effective batch;
    with fsdp, accelerate's own FSDP2 shares the base out as well.
    """
    from trl import SFTConfig

    train = settings.train
    shape = steps.share(train, group.size)
    fsdp = {"fsdp": True, "fsdp_config": dict(_FSDP)} if group.shares_base else {}
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
        ddp_find_unused_parameters=False,
        **fsdp,
    )
