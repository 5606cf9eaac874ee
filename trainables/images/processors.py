"""Loads the checkpoint's processor, and refuses a base that takes no images."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from trainables.data import contents, tokenizers
from trainables.hub import client, sources
from trainables.settings import DataSettings, ModelSettings
from tuner.contract import InputError

FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files of a checkpoint that may name the processor's class."""
_STARTS = ("processor_config", "preprocessor_config")
"""Beginnings of the names of the processor's own files."""
_LEAVE_OUT = "set data.columns to {images: null} to learn the rows as text"


def load(model: ModelSettings, data: DataSettings) -> tuple[Any, tuple[str, ...]]:
    """The processor with a pad token and the chat template of the settings, and notes for the user. Raises InputError
    for a base that takes no images, and a processor that is not its own."""
    folder = _folder(model)
    config = _read(folder / "config.json")
    _require_images(config, model.model_name_or_path)
    if model.tokenizer_name_or_path is not None:
        raise InputError("rows with images, and a tokenizer of its own", where="model.tokenizer_name_or_path",
                         expected="null: the base's processor has the tokenizer that writes the places of "
                         "images")  # fmt: skip
    if not any((folder / name).is_file() for name in FILES[:2]):
        raise InputError("rows with images, and the base has no processor", where=model.model_name_or_path,
                         expected=" or ".join(FILES[:2]),
                         remedy="save the processor of the model that the base was made from beside it")  # fmt: skip
    processor = _loaded(folder, model)
    tokenizer = processor.tokenizer
    notes = tokenizers.give_pad_token(tokenizer, model.model_name_or_path)
    if data.chat_template is not None:
        tokenizer.chat_template = processor.chat_template = tokenizers.read_template(data.chat_template)
    tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
    processor.chat_template = processor.chat_template or tokenizer.chat_template
    _require_same_tokens(processor, config, model.model_name_or_path)
    return processor, notes


def image_tokens(processor: Any, config: dict[str, Any]) -> frozenset[int]:
    """The ids of tokens in whose places the base puts what it sees of an image. config: the content of config.json."""
    said = _said(config)
    return frozenset([said] if said is not None else _ids_of(processor))


def config_of(model: ModelSettings) -> dict[str, Any]:
    """The content of the base's config.json."""
    return _read(_folder(model) / "config.json")


def fingerprints(model: ModelSettings) -> dict[str, str]:
    """Of the processor's files, by name."""
    return contents.of_files(_folder(model), _STARTS)


def _folder(model: ModelSettings) -> Path:
    source = sources.base_of(model)
    return Path(model.model_name_or_path) if source is None else client.fetch(source)


def _require_images(config: dict[str, Any], where: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    if config.get("model_type") in KNOWN or "vision_config" in config:
        return
    raise InputError(f"rows with images, and the base ({config.get('model_type')}) takes text alone",
                     where=f"{where}: config.json", expected="a base that takes images and text",
                     remedy=_LEAVE_OUT)  # fmt: skip


def _loaded(folder: Path, model: ModelSettings) -> Any:
    from transformers import AutoProcessor, ProcessorMixin

    options = {"trust_remote_code": model.trust_remote_code}
    try:
        try:
            processor = AutoProcessor.from_pretrained(str(folder), **options)
        except (ImportError, ValueError):  # with either, transformers says that it needs torchvision
            own = _without_videos(folder)
            if own is None:
                raise
            processor = own.from_pretrained(str(folder), **options)
    except Exception as error:  # as many kinds as there are classes
        if package := missing_package(error):
            raise InputError(
                f"its processor needs the package {package}, which is not installed",
                where=model.model_name_or_path, expected="what the processor imports, on this machine and every node",
                remedy=f"pip install {package}, and the same on every node",
            ) from None  # fmt: skip
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"the processor cannot be loaded: {told}", where=model.model_name_or_path,
                         expected="the processor that the base was trained with") from None  # fmt: skip
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "image_processor"):
        raise InputError(f"its processor is a {type(processor).__name__}, which takes no images",
                         where=model.model_name_or_path, expected="a processor of images and text")  # fmt: skip
    return processor


def missing_package(error: Exception) -> str:
    """The packages that are not installed, as pip names them; "" where the error says nothing of them. transformers
    raises errors of its own, which name a library in words."""
    text = " ".join(str(error).split())
    patterns = (r"`pip install ([^`]+)`", r"pip install (?:-\S+ )*([\w.\[\]-]+)", r"requires the (\w+) library",
                r"requires `([\w-]+)` to be installed")  # fmt: skip
    for pattern in patterns if isinstance(error, ImportError | ValueError) else ():
        if found := re.search(pattern, text):
            return found[1].strip().lower()
    return (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""


def _without_videos(folder: Path) -> Any:
    """The class of the checkpoint's processor, made to load without its part for videos; None where it has none.

    That part needs torchvision, which has no wheel for a CPU's torch. Images go through Pillow without it.
    """
    from transformers.models.auto.processing_auto import processor_class_from_name

    named = next((name for file in FILES if (name := _read(folder / file).get("processor_class"))), None)
    made = processor_class_from_name(named) if named else None
    if made is None or "video_processor" not in inspect.signature(made.__init__).parameters:
        return None
    plain = made.__init__
    parts = inspect.signature(plain)

    # transformers loads what the signature names
    def begin(self: Any, *arguments: Any, **more: Any) -> None:
        given = dict(zip(self.get_attributes(), arguments, strict=False))
        plain(self, **given, video_processor=None, **more)

    kept = [one for name, one in parts.parameters.items() if name != "video_processor"]
    begin.__signature__ = parts.replace(parameters=kept)  # type: ignore[attr-defined]
    return type(made.__name__, (made,), {"__init__": begin, "__module__": made.__module__})


def _require_same_tokens(processor: Any, config: dict[str, Any], where: str) -> None:
    said, ids = _said(config), _ids_of(processor)
    if said is not None and ids and said not in ids:
        raise InputError(
            f"the processor ({type(processor).__name__}) marks images with token {sorted(ids)[0]}, the base expects "
            f"{said}", where=where, expected="the processor that the base was trained with",
        )  # fmt: skip


def _said(config: dict[str, Any]) -> int | None:
    """The id of the token that the base expects in the places of images."""
    found = config.get("image_token_id", config.get("image_token_index"))
    return found if isinstance(found, int) else None


def _ids_of(processor: Any) -> set[int]:
    held = [getattr(part, "image_token_id", None) for part in (processor, processor.tokenizer)]
    return {one for one in held if isinstance(one, int)}


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON ({error})", where=str(file)) from None
    return found if isinstance(found, dict) else {}
