"""A trial's SFTConfig."""

from __future__ import annotations

from typing import Any

from trainables.settings import Settings, steps
from tuner.contract import ALONE, Group

_FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
"""accelerate's arguments: a layer is gathered when it is needed, and sharded again afterwards."""


def sft_config(
    settings: Settings, max_steps: int, seed: int, folder: str, *, gpu: bool, bf16: bool, group: Group = ALONE
) -> Any:
    """The `trl.SFTConfig` of a trial of `max_steps` optimizer steps.

    Callbacks trigger evaluation, logging and saving, so the trainer's own schedules are off. The rows are tokenized
    and cut already, so preparation is skipped and `max_length` is None. bf16: the base computes in it, on GPUs under
    autocast or, with fsdp, by FSDP's policy. folder: for files of the trainer. group: the processes that share the
    effective batch; with fsdp, accelerate's FSDP2 shards the base as well.
    """
    from trl import SFTConfig

    train = settings.train
    split = steps.split_of(train, group.size)
    fsdp = {"fsdp": True, "fsdp_config": dict(_FSDP)} if group.shares_base else {}
    arguments = SFTConfig(
        output_dir=folder,
        max_steps=max_steps,
        per_device_train_batch_size=split.micro,
        gradient_accumulation_steps=split.accumulation,
        per_device_eval_batch_size=train.per_device_eval_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=steps.warmup_steps(train.warmup_ratio, max_steps),
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        gradient_checkpointing=train.gradient_checkpointing,
        bf16=bf16 and gpu,
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
        # With the filter, a NaN in the training loss or among the validation batches would be hidden
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,
        **fsdp,
    )
    if fsdp and bf16:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = _precision()
    return arguments


def _precision() -> Any:
    """FSDP2's policy for a base in bf16.

    With accelerate's own policy the model's outputs are bf16, and so is the loss that is computed from them: a
    validation loss near 12.66 then changes in steps of 0.06, and an adapter that learns slowly looks like one without
    effect. That policy also reduces gradients in bf16, where DDP reduces them in the adapter's fp32.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
