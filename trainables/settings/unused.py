"""Finds settings that somebody wrote and that have no effect beside the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from trainables.settings.root import Settings


def unused(settings: Settings, varied: Collection[str]) -> tuple[str, ...]:
    """A sentence for each setting that is not its default, or is searched, and that nothing reads.

    varied: the short names that the space searches. Whether a default was written cannot be told: a resumed search and
    `train.yaml` spell out every setting.
    """
    notes = []
    for path, reason_for in _RULES.items():
        section, _, key = path.partition(".")
        values = getattr(settings, section)
        value, default = getattr(values, key), type(values).model_fields[key].default
        if (value != default or key in varied) and (reason := reason_for(settings, varied)):
            subject = f"{path} is searched and" if key in varied else f"{path} {value}"
            notes.append(f"{subject} has no effect: {reason}")
    return tuple(notes)


def _alpha(settings: Settings, varied: Collection[str]) -> str:
    if settings.train.lora_alpha_mode != "2r" or "lora_alpha_mode" in varied:
        return ""
    return "lora_alpha_mode 2r makes alpha twice lora_r; set lora_alpha_mode to fixed to use it"


def _warmup(settings: Settings, varied: Collection[str]) -> str:
    constant = settings.train.lr_scheduler_type == "constant" and "lr_scheduler_type" not in varied
    if not constant or not (settings.train.warmup_ratio or "warmup_ratio" in varied):
        return ""
    return "lr_scheduler_type constant has no warm-up; constant_with_warmup has one"


def _validation_fraction(settings: Settings, varied: Collection[str]) -> str:
    return "data.validation names the validation rows, so none are split off" if settings.data.validation else ""


def _text_field(settings: Settings, varied: Collection[str]) -> str:
    form = settings.data.format
    return f"rows of data.format {form} have no such column" if form in ("messages", "prompt-completion") else ""


def _validation_revision(settings: Settings, varied: Collection[str]) -> str:
    return "" if settings.data.validation else "data.validation names no dataset"


def _tokenizer_revision(settings: Settings, varied: Collection[str]) -> str:
    return (
        "" if settings.model.tokenizer_name_or_path else "the tokenizer comes with the model; set model.model_revision"
    )


def _model_revision(settings: Settings, varied: Collection[str]) -> str:
    model = settings.model
    local = Path(model.model_name_or_path).is_dir() and not model.trust_remote_code  # which asks for a revision
    return "the base is a local folder, which has one version" if local else ""


def _of_a_dataset(settings: Settings, varied: Collection[str]) -> str:
    data = settings.data
    if "[" in data.split:
        return ""
    named = [
        name
        for given in (data.train, data.validation)
        for name in ((given,) if isinstance(given, str) else given or ())
    ]
    return "the rows come from a file, which has one version and one split" if all(map(_is_file, named)) else ""


def _is_file(name: str) -> bool:
    return Path(name).is_file()


_RULES: dict[str, Callable[[Settings, Collection[str]], str]] = {
    "train.lora_alpha": _alpha,
    "train.warmup_ratio": _warmup,
    "data.validation_fraction": _validation_fraction,
    "data.text_field": _text_field,
    "data.validation_revision": _validation_revision,
    "data.split": _of_a_dataset,
    "data.name": _of_a_dataset,
    "data.revision": _of_a_dataset,
    "model.tokenizer_revision": _tokenizer_revision,
    "model.model_revision": _model_revision,
}
