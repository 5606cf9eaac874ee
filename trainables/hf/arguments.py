"""A trial's SFTConfig."""

from __future__ import annotations

from typing import Any

from trainables.settings import Settings, steps
from tuner.contract import ALONE, Group

_FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
"""accelerate's words for it: a layer is put together where it is needed, and taken apart again."""


def sft_config(
    settings: Settings, max_steps: int, seed: int, folder: str, *, gpu: bool, bf16: bool, group: Group = ALONE
) -> Any:
    """TRL's arguments of a trial of `max_steps` optimizer steps.

    Evaluation, logging and saving are driven by callbacks, so their own schedules are off. The rows come tokenized
    and cut, so preparation is skipped and `max_length` is None. bf16: the base computes in it, on GPUs under autocast
    or, with fsdp, by FSDP's policy. group: the processes that share the effective batch; with fsdp, accelerate's own
    FSDP2 shares the base out as well.
    """
    from trl import SFTConfig

    train = settings.train
    shape = steps.share(train, group.size)
    fsdp = {"fsdp": True, "fsdp_config": dict(_FSDP)} if group.shares_base else {}
    arguments = SFTConfig(
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
        # Both would be hidden otherwise: a NaN in the training loss, and one among the validation batches
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,
        **fsdp,
    )
    if fsdp and bf16:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = _precision()
    return arguments


def _precision() -> Any:
    """FSDP2's policy for a base in bf16.

    accelerate's own hands what the model gives out in bf16, and a row's loss is summed from that: a validation loss of
    12.66 then moves in steps of 0.06, and an adapter that learns slowly looks like one without effect. It adds the
    gradients up in bf16 too, where DDP does it in the adapter's fp32.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
