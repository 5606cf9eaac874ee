"""What becomes of an adapter once it is trained: the part of the SFT program that trains nothing.

Importing this module costs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables import runtime
from tuner.contract import Card, Program, Scored, ScoreRequest, Served, Tell, silent


class AfterTraining(Program):
    """The class methods of the SFT program for trained adapters."""

    @classmethod
    def card(cls, settings: Any, setup: Mapping[str, Any]) -> Card:
        """What the model card says of the base, and of how its loss was measured."""
        from trainables.model_card import card

        return card(runtime.validated(settings), setup)

    @classmethod
    def foreign_code(cls, settings: Mapping[str, Any]) -> str:
        """In words: the base's own code, if the settings let it run; else "". The settings may be a stranger's, and are
        not validated."""
        model = settings.get("model")
        if not isinstance(model, Mapping) or not model.get("trust_remote_code"):
            return ""
        return f"code that comes with the base {model.get('model_name_or_path')!r}"

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Fingerprints of what an adapter is merged into: the base, its tokenizer and the chat template."""
        from trainables import fingerprints

        return {fingerprints.MADE_OF: fingerprints.of_model(runtime.validated(settings))}

    @classmethod
    def merge(cls, settings: Mapping[str, Any], adapter_folder: str | Path, to: str | Path) -> None:
        """Merges an adapter into its base and saves a model folder with the tokenizer. Raises InputError."""
        from trainables import imports

        with imports.heavy():
            from trainables.models.merging import merge
        merge(runtime.validated(settings), Path(adapter_folder), Path(to))

    @classmethod
    def serve(
        cls,
        settings: Mapping[str, Any],
        adapter_folder: str | Path,
        to: str | Path,
        server: str,
        name: str,
        merge: bool,
        compare: bool,
    ) -> Served:
        """Writes what a server needs of an adapter, or of the base with the adapter merged. Raises InputError."""
        from trainables.serving.exporting import serve

        return serve(
            runtime.validated(settings), Path(adapter_folder), Path(to), server, name, merge=merge, compare=compare
        )

    @classmethod
    def score(cls, settings: Mapping[str, Any] | None, request: ScoreRequest, tell: Tell = silent) -> Scored:
        """Scores a base and adapters on it side by side. Raises InputError and Fault."""
        from trainables.answers import scoring

        known = scoring.settings_of(request.source, request.rows) if settings is None else runtime.validated(settings)
        return scoring.score(known, request, tell)
