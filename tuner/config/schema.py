"""Makes the JSON Schema (draft 2020-12) of the files that a person writes, from the same models that check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from tuner.config.sections import Sections
from tuner.contract import Parameter, Program

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def experiment_schema(program: type[Program]) -> dict[str, Any]:
    """The schema of an experiment file: the program's sections and the search's."""
    halves: list[Any] = [(program.Settings, "validation"), (Sections, "validation")]
    references, shared = models_json_schema(halves)  # one table of definitions, so that equal names do not collide
    definitions = dict(shared.get("$defs", {}))
    properties: dict[str, Any] = {}
    for half in halves:
        name = references[half]["$ref"].rpartition("/")[2]
        properties.update(definitions.pop(name)["properties"])
    return {
        "$schema": DIALECT,
        "title": "tuner experiment",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def space_schema(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The schema of a search space file over the parameters of a program."""
    known: dict[str, Any] = {}
    for name, parameter in parameters.items():
        known[name] = known[parameter.path] = _parameter_schema(parameter)
    return {
        "$schema": DIALECT,
        "title": "tuner search space",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Shown in tables; by default the file's name."},
            "description": {"type": "string", "description": "One line for `tuner spaces`."},
            "settings": {
                "type": "object",
                "description": "Settings the space brings along, by dotted name; the experiment file overrides them.",
            },
            "first": {
                "type": "array",
                "description": "Points to try after the recipe, in this order: values by parameter; the rest as in "
                "the recipe.",
                "items": {"type": "object"},
            },
            "parameters": {
                "type": "object",
                "description": "What is searched.",
                "properties": known,
                "additionalProperties": False,
            },
        },
        "required": ["parameters"],
        "additionalProperties": False,
        "$defs": _KINDS,
    }


_WHEN = {
    "type": "object",
    "description": "Searched only in trials where each named parameter has this value, or one of these.",
}


def _range_schema(kind: str, number: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "type": {"const": kind},
            "low": {"type": number, "description": "Smallest value, included."},
            "high": {"type": number, "description": "Largest value, included."},
            "log": {"type": "boolean", "default": False, "description": "Draw evenly over orders of magnitude."},
            "step": {"type": [number, "null"], "exclusiveMinimum": 0, "description": "Only low, low + step, ..."},
            "when": _WHEN,
        },
        "required": ["type", "low", "high"],
        "additionalProperties": False,
    }


_KINDS: dict[str, Any] = {
    "float": _range_schema("float", "number"),
    "int": _range_schema("int", "integer"),
    "choice": {
        "type": "object",
        "properties": {
            "type": {"const": "choice"},
            "values": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "description": "The values to choose from.",
            },
            "when": _WHEN,
        },
        "required": ["type", "values"],
        "additionalProperties": False,
    },
}


def _parameter_schema(parameter: Parameter) -> dict[str, Any]:
    """The kinds of distribution that a parameter may have: integers are valid for a float, and a choice for all."""
    kinds = {"float": ("float", "int", "choice"), "int": ("int", "choice")}.get(parameter.kind, ("choice",))
    described = {"description": parameter.path}
    return {**described, "anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]}
