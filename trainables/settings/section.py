"""The base class of all sections of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue

PATH: dict[str, JsonValue] = {"format": "path"}
"""JSON Schema mark of a field that may hold a path: those are resolved against the file they are written in."""


class Section(BaseModel):
    """Strict and immutable: an unknown key is an error, a changed setting is a new object."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
