"""Makes the libraries log errors only."""

from __future__ import annotations

import logging
import os
import warnings


def before_imports() -> None:
    """Sets the environment that libraries read when they are imported: no telemetry, no progress bars, no advice."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, every fork logs a warning
    for name in ("bitsandbytes", "trl", "peft", "accelerate", "datasets", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def after_imports() -> None:
    """Sets what can be set only once the libraries are imported."""
    import datasets
    import transformers

    # Warnings about TRL's use of transformers' deprecated names, which a user cannot change
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
