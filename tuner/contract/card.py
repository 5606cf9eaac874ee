"""What a program adds to the model card of the best adapter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A program's part of the README in `best/`, a model card in Markdown."""

    what: str = "An adapter"
    """The subject of the first sentence ("A LoRA adapter for `Qwen/Qwen3-8B` at `main`")."""
    library: str = ""
    """`library_name` of the metadata block that the Hugging Face hub reads; left out where it is empty."""
    base: str = ""
    """`base_model` of that block: a hub id, or a folder; left out where it is empty."""
    tags: tuple[str, ...] = ()
    """`tags` of that block, beside "tuner"."""
    facts: tuple[str, ...] = ()
    """Items of the list under the heading."""
    measured: str = ""
    """How the objectives are measured, in a sentence."""
    usage: str = ""
    """Python that loads the adapter from PATH_OF_THIS_FOLDER."""
