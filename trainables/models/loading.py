"""Chooses the class of a base, loads it by transformers and gives its report; and loads names and shapes alone."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from trainables.models import checkpoint
from trainables.models.completeness import Loading
from trainables.settings import ModelSettings
from tuner.contract import InputError

Model = Any

_ONE_LOAD = threading.RLock()
"""Held during a load: transformers patches its own classes, and two threads at once would leave them patched."""

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
"""By safetensors' name."""

_LINE = re.compile(r"^(\S[^|\n]*?)\s*\|[^|\n]*(MISSING|CONVERSION)", re.MULTILINE)
"""Matches a line of transformers' report on a load: a weight, and the kind of problem."""


_AUTO = (
    transformers.AutoModelForCausalLM,
    transformers.AutoModelForImageTextToText,
    transformers.AutoModelForMultimodalLM,
)
"""Where config.json names no class that can be taken: the first that has one for its model type."""


def config_of(model: ModelSettings, folder: Path) -> Any:
    """The config of the base in `folder`, as transformers reads it. Raises InputError."""
    said = checkpoint.config(folder)
    kind = said.get("model_type")
    if isinstance(kind, str) and kind not in CONFIG_MAPPING and "auto_map" not in said:
        raise InputError(
            f"transformers {transformers.__version__} knows no model type {kind!r}",
            where=f"{model.model_name_or_path}: config.json",
            expected="a base of a class that the installed transformers has",
            remedy="upgrade transformers in every worker's environment, or take another base",
        )
    with input_errors(model.model_name_or_path):
        return transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=model.trust_remote_code)


def class_of(config: Any, model: ModelSettings) -> Any:
    """The class that the base is loaded as: the one that its config names, which gives weights the checkpoint's names.

    TRL's loader takes it too. Where the config names none that generates text from this config, or one of the base's
    own code, it is transformers' automatic class. Raises InputError where there is none.
    """
    own = getattr(config, "auto_map", None) or {}
    if own and model.trust_remote_code:
        found = [auto for auto in _AUTO[:2] if auto.__name__ in own]
        return found[-1] if found else _AUTO[0]
    named = (getattr(config, "architectures", None) or [""])[0]
    made = getattr(transformers, str(named), None) if not getattr(config, "is_encoder_decoder", False) else None
    generates = isinstance(made, type) and issubclass(made, transformers.GenerationMixin)
    if generates and getattr(made, "config_class", None) is type(config):
        return made
    for auto in _AUTO:
        if type(config) in auto._model_mapping:
            return auto
    raise InputError(
        f"no language model: {named or config.model_type} is a class that gives no tokens one after another",
        where=f"{model.model_name_or_path}: config.json",
        expected="a base that predicts the next token of a text, by itself or with images",
    )


def reported(load: Callable[..., Any], name: str, **options: Any) -> tuple[Model, Loading]:
    """Calls `load`, a `from_pretrained`, with `options`; gives the model and the report.

    The model is None where a weight could not be made from several tensors. name: of the model's class, for that case.
    Raises what `load` raises for another reason.
    """
    with _ONE_LOAD, _log() as said:
        try:
            model, info = load(output_loading_info=True, ignore_mismatched_sizes=True, **options)
        except RuntimeError:
            lines = [line for text in said for line in _LINE.findall(text)]
            missing, unconverted = ([key for key, what in lines if what == kind] for kind in ("MISSING", "CONVERSION"))
            if not lines:
                raise
            return None, Loading(name, 0, missing=missing, unconverted=unconverted)
    return model, Loading(
        type(model).__name__,
        len(model.state_dict()),
        info["missing_keys"],
        info["unexpected_keys"],
        [(key, tuple(has), tuple(wants)) for key, has, wants in info["mismatched_keys"]],
    )


def of_headers(model: ModelSettings, folder: Path) -> tuple[Model, Loading]:
    """The base in `folder` without values, and what its load would report: 70 GB take as long as 1.

    Transformers' own conversions (fused experts, renamed and tied weights) are applied. Weights that are stored
    quantized are made from the values of several tensors, and are left out of the report. Raises InputError.
    """
    tensors = {
        name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.uint8), device="meta")
        for file in checkpoint.files(folder)
        for name, tensor in checkpoint.header(file).items()
    }
    config = config_of(model, folder)
    made = class_of(config, model)
    with _ONE_LOAD, input_errors(model.model_name_or_path):
        if made in _AUTO:
            with torch.device("meta"):
                made = type(made.from_config(config, attn_implementation=model.attention))
        shape, loading = reported(
            made.from_pretrained, made.__name__, pretrained_model_name_or_path=None, config=config,
            state_dict=tensors, device_map={"": "meta"}, attn_implementation=model.attention,
        )  # fmt: skip
    require_trainable(shape, model.model_name_or_path)
    if getattr(config, "quantization_config", None) is None:
        return shape, loading
    return shape, replace(loading, missing=set(loading.missing) - set(loading.unconverted), unconverted=())


def require_trainable(base: Model, where: str) -> None:
    """Raises InputError where a base is stored quantized in a form through which transformers passes no gradient."""
    quantizer = getattr(base, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_trainable:
        raise InputError(
            f"the base is stored quantized ({quantizer.quantization_config.quant_method}) in a form that is for "
            "inference alone",
            where=where,
            expected="a base that is not quantized",
            remedy="take the model that it was made from, with model.quantization nf4 if it is large",
        )


@contextmanager
def input_errors(where: str) -> Iterator[None]:
    """Within it, errors of transformers and safetensors about a base are raised as InputError."""
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(message, where=where, expected="a causal language model with safetensors weights") from error


@contextmanager
def _log() -> Iterator[list[str]]:
    """Within it, what transformers logs about a load goes into this list instead."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_utils")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
