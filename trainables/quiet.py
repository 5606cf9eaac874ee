"""The libraries beneath speak only when something is wrong."""

from __future__ import annotations

import logging
import os
import warnings


def before_imports() -> None:
    """Environment read at import: no telemetry, no progress bars, no advice."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # said, or every fork brings a warning
    for name in ("bitsandbytes", "trl", "peft", "accelerate", "datasets", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def after_imports() -> None:
    """Settings of the libraries once they are there."""
    import datasets
    import transformers

    # About TRL's own use of transformers' older names: nothing a user could act on
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
