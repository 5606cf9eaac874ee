"""Fixtures of several test packages: a tiny random Llama with its own tokenizer, and rows in each format.

torch runs on one thread: on two shared cores its threads wait for each other, and a step of a tiny model takes 20 times
as long.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import (  # noqa: F401  the table of faults, wherever they are brought about
    fault,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

# A background job of a shell ignores Ctrl-C, and one under `nohup` SIGHUP; every process that a test starts inherits it
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# pytest-xdist sets them, and then every terminal that a test opens would seem to have that size
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The toys of tests/programs are named by search files that lie elsewhere; and what was allowed is not kept in the home
os.environ["TUNER_ALLOW_MODULES"] = "tests"
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="tuner-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "dog",
    "ran",
    "to",
    "red",
    "house",
    "with",
    "tree",
    "under",
    "sun",
]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|end|>{% endgeneration %}{% else %}{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END, PAD = "<|end|>", "<|pad|>"


def sentences(number: int, seed: int = 0) -> list[str]:
    """Draws sentences of 3 to 12 words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(number)]


def text_rows(number: int = 48) -> list[dict[str, Any]]:
    return [{"text": sentence} for sentence in sentences(number)]


def completion_rows(number: int = 48) -> list[dict[str, Any]]:
    """Draws rows with a prompt, and its words in reverse order as the completion."""
    return [{"prompt": s + " =>", "completion": " " + " ".join(reversed(s.split()))} for s in sentences(number)]


def chat_completion_rows(number: int = 48) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in completion_rows(number)
    ]


def message_rows(number: int = 48) -> list[dict[str, Any]]:
    return [{"messages": row["prompt"] + row["completion"]} for row in chat_completion_rows(number)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes one JSON object on each line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_tokenizer(folder: Path, *, pad: bool = True, template: bool = True) -> Any:
    """Saves a byte-level BPE tokenizer trained on the sentences; without torch."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = [END, PAD, "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    raw.train_from_iterator(sentences(400), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD if pad else None)
    if template:
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder: Path, *, pad: bool = True, template: bool = True, seed: int = 0) -> Path:
    """Saves a random Llama of 2 layers and width 64, and a byte-level BPE tokenizer trained on the sentences."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(folder, pad=pad, template=template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sets one thread, for tests that have imported torch before they begin."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    return make_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model's tokenizer and a config.json: no weights, so that no test needs torch for it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    size = len(make_tokenizer(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": size}))
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one JSONL file for each format: text, completion, chat_completion, messages."""
    folder = tmp_path_factory.mktemp("rows")
    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "text": text_rows,
        "completion": completion_rows,
        "chat_completion": chat_completion_rows,
        "messages": message_rows,
    }
    for name, rows in makers.items():
        write_jsonl(folder / f"{name}.jsonl", rows())
    return folder


@pytest.fixture(scope="session")
def sft_settings(tiny_model: Path, tiny_data: Path) -> Callable[..., dict[str, Any]]:
    """Makes settings of the SFT program on the tiny model; a keyword overrides settings of its section."""

    def make(**sections: dict[str, Any]) -> dict[str, Any]:
        base = {
            "model": {"model_name_or_path": str(tiny_model)},
            "data": {"train": str(tiny_data / "completion.jsonl"), "max_length": 64, "validation_fraction": 0.25},
            "train": {"max_steps": 8, "learning_rate": 5e-3, "lora_r": 4, "effective_batch_size": 8},
        }
        return {name: {**values, **sections.get(name, {})} for name, values in base.items()}

    return make
