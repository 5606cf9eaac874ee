"""What a program says of an adapter that it has written for a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """An adapter, or a model with the adapter merged, in the form that a server loads."""

    commands: tuple[str, ...] = ()
    """What to run to serve it, in order: lines for a shell, or of Python where the server is a library."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    compared: str = ""
    """What a comparison with the trained model has found; "" where none was made."""
