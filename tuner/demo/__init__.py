"""The embedded example: a tiny real base model, a real fine-tuning set and the search over them (README.md).

base/             a Llama of 1.05M parameters and its tokenizer
train.jsonl       prompt and completion: a function, its docstring; so are validation.jsonl and test.jsonl
search.yaml       the experiment file that `python -m tuner search` runs without a FILE
sources.json      the split of each file of the standard library, and how the base was trained
"""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """The folder that holds the demo's files."""
    return Path(__file__).resolve().parent
