"""Search spaces as a user writes them in Python."""

from __future__ import annotations

from typing import Any


def good(trial: Any) -> dict[str, Any]:
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    rank = trial.suggest_categorical("lora_r", [8, 16, 32])
    # YAML cannot express a range that depends on another value
    warmup = trial.suggest_float("warmup_ratio", 0.0, 0.2 if rate > 1e-3 else 0.1)
    return {"train.learning_rate": rate, "lora_r": rank, "warmup_ratio": warmup}


def renamed(trial: Any) -> dict[str, Any]:
    return {"learning_rate": 10 ** trial.suggest_float("log_rate", -5, -2)}


def unknown(trial: Any) -> dict[str, Any]:
    return {"leaning_rate": trial.suggest_float("leaning_rate", 1e-5, 1e-2)}


def refused(trial: Any) -> dict[str, Any]:
    return {"max_length": trial.suggest_int("max_length", 8, 64)}


def empty(trial: Any) -> None:
    trial.suggest_float("learning_rate", 1e-5, 1e-2)


NOT_A_FUNCTION = 3
