"""Hands models over to lm-evaluation-harness, where that is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping

from tuner.contract import InputError

_MODULE = "lm_eval"


def require() -> None:
    """Raises InputError where it is not installed."""
    if importlib.util.find_spec(_MODULE) is None:
        raise InputError(
            "lm-evaluation-harness is not installed",
            where="--lm-eval",
            expected="the package lm_eval in this environment",
            remedy="python -m pip install lm_eval, or leave --lm-eval out",
        )


def run(models: Mapping[str, str], tasks: str) -> int:
    """Runs tasks on each model, one after the other, and prints what the harness says; gives the first exit code that
    is not 0. models: by name, its `--model_args`."""
    for name, arguments in models.items():
        sys.stderr.write(f"lm-evaluation-harness, {name}: {tasks}\n")
        words = ["--model", "hf", "--model_args", arguments, "--tasks", tasks, "--batch_size", "auto"]
        code = subprocess.run([sys.executable, "-m", _MODULE, *words], check=False).returncode
        if code:
            return code
    return 0
