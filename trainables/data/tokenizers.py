"""Loads the tokenizer with its pad and end tokens and its chat template."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trainables.hub import client, sources
from trainables.settings import DataSettings, ModelSettings
from tuner.contract import InputError

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes for a tokenizer.json and nothing else. They load without torch; AutoTokenizer imports it (2 s)."""

_PLAIN_MODELS = ("llama",)
"""Model types for which AutoTokenizer takes such a class as the configuration names it. For others, qwen2 among them,
it chooses a class by the model's type, which splits text differently."""


def load(model: ModelSettings, data: DataSettings | None = None, *, alone: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Loads the tokenizer with a pad token and, with `data`, the chat template that it names; gives notes for the user
    too.

    alone: the base is not downloaded with it. Raises InputError.
    """
    name = model.tokenizer
    source = sources.tokenizer_alone(model) if alone else sources.tokenizer_of(model)
    folder = Path(name) if source is None else client.fetch(source)
    _check_folder(name, folder)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        tokenizer = _class(folder).from_pretrained(str(folder), trust_remote_code=model.trust_remote_code)
    except Exception as error:  # OSError, ValueError, and whatever the tokenizers crate raises on broken files
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the tokenizer cannot be loaded: {message}", where=name,
                         expected=f"a tokenizer: {', '.join(_FILES[:3])} ...") from None  # fmt: skip
    if data is not None and data.chat_template is not None:
        tokenizer.chat_template = read_template(data.chat_template)
    return tokenizer, give_pad_token(tokenizer, name)


def read_template(path: str) -> str:
    """The text of a chat template file. Raises InputError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"cannot be read ({reason})", where=path, expected="a .jinja chat template") from None


def _check_folder(name: str, folder: Path) -> None:
    if folder.is_dir():
        if not any((folder / file).is_file() for file in _FILES):
            raise InputError("the folder has no tokenizer", where=name, expected=f"one of {', '.join(_FILES)}",
                             remedy="save the tokenizer there, or set model.tokenizer_name_or_path")  # fmt: skip
    else:
        raise InputError("no such folder", where=name, expected="a local folder or a hub id (org/name)")


def _class(folder: Path) -> Any:
    """The class that gives the tokens of AutoTokenizer, without torch if possible."""
    written, model = (_read(folder / file) for file in ("tokenizer_config.json", "config.json"))
    plain = written.get("tokenizer_class") in _PLAIN and "auto_map" not in written
    if plain and model.get("model_type") in _PLAIN_MODELS and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def give_pad_token(tokenizer: Any, name: str) -> tuple[str, ...]:
    """Makes the end token the pad token where there is none; gives a note for the user. Raises InputError."""
    if tokenizer.pad_token is not None:
        return ()
    if tokenizer.eos_token is None:
        raise InputError("the tokenizer has neither a pad token nor an end-of-sequence token", where=name,
                         expected="at least an eos_token", remedy="set eos_token in tokenizer_config.json",
                         )  # fmt: skip
    tokenizer.pad_token = tokenizer.eos_token
    return (f"the tokenizer has no pad token: using its end-of-sequence token {tokenizer.eos_token!r}",)
