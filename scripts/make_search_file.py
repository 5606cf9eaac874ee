"""Writes docs/search-file.md, the reference of a search file, from the schema that checks search files.

    python scripts/make_search_file.py            # writes docs/search-file.md
    python scripts/make_search_file.py FILE       # writes FILE

Keys, values, defaults and meanings are those of `python -m tuner plan --schema`; only the introduction is written here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainables.sft import SFT
from tuner.config import experiment_schema
from tuner.config.words import describe

PLACE = Path(__file__).parents[1] / "docs" / "search-file.md"

Schema = Mapping[str, Any]

REQUIRED = {"model_name_or_path": "Qwen/Qwen3-8B", "train": "train.jsonl"}
"""Values of the example for the keys that have no default."""

INTRODUCTION = """\
<!-- scripts/make_search_file.py writes this file from the schema. Change the settings' descriptions, then run it. -->

# The search file

A search file is YAML. Only the model (`model.model_name_or_path`) and the training rows (`data.train`) are required;
every other key has a default. An unknown key is an error, and the message names the nearest valid key.

- **Order.** A later source replaces an earlier one: the defaults, the `settings:` of the search space, the search file,
  then `--set section.key=value` and the flags of the command line.
- **Paths.** A relative path in the file is relative to the file. A relative path on the command line, and
  `run.storage_path`, are relative to the current folder.
- **Programs of your own.** The sections `model`, `data` and `train` are those of the shipped program `sft`. With
  `run.program`, a program of your own declares its own sections in their place.
- **Editors.** `python -m tuner plan --schema > search.schema.json` writes the JSON Schema of this file.

`python -m tuner plan FILE` checks a file and prints what a search would do.

## Every key with its default

```yaml
"""


def reference() -> str:
    """The text of docs/search-file.md."""
    schema = experiment_schema(SFT)
    sections = schema["properties"].items()
    lines = [INTRODUCTION + "\n".join(line for name, node in sections for line in _example(name, node, schema)), "```"]
    for name, node in sections:
        lines += _section(name, node, schema)
    return "\n".join(lines) + "\n"


def _example(name: str, node: Schema, schema: Schema) -> Iterator[str]:
    """A section of the example: each key on a line, with its default."""
    yield f"{name}:"
    default = node.get("default", {})
    mapping = next(part for part in _mappings(node, schema) if _kind(part) in (None, default.get("kind")))
    for key in sorted(mapping["properties"], key=lambda key: key != "kind"):
        part = mapping["properties"][key]
        value = REQUIRED[key] if key in mapping.get("required", ()) else default.get(key, part.get("default"))
        yield f"  {key}: {_shown(value, part, schema)}"


def _section(name: str, node: Schema, schema: Schema, level: str = "##") -> Iterator[str]:
    """A heading and a table for the mapping at key `name`, then those for the mappings in it."""
    mappings = list(_mappings(node, schema))
    yield f"\n{level} `{name}`"
    if len(mappings) > 1:
        if "description" in node:
            yield f"\n{_text(node['description'])}"
        yield "\n| kind | meaning |\n| --- | --- |"
        for mapping in mappings:
            mark = " (default)" if _kind(mapping) == node.get("default", {}).get("kind") else ""
            yield f"| `{_kind(mapping)}`{mark} | {_cell(mapping.get('description', ''))} |"
    elif "description" in mappings[0]:
        yield f"\n{_text(mappings[0]['description'])}"
    inner: dict[str, Schema] = {}
    for mapping in mappings:
        keys = {key: part for key, part in mapping["properties"].items() if key != "kind"}
        if keys and len(mappings) > 1:
            yield f"\nWith `kind: {_kind(mapping)}`:"
        if keys:
            yield "\n| key | default | accepts | meaning |\n| --- | --- | --- | --- |"
        for key, part in keys.items():
            default = f"`{_shown(part.get('default'), part, schema)}`"
            default = "required" if key in mapping.get("required", ()) else default
            yield f"| `{key}` | {default} | {_cell(_accepts(part, schema))} | {_cell(part.get('description', ''))} |"
            if any(_mappings(part, schema)):
                inner.setdefault(key, part)  # kinds that share a part describe it once
    for key, part in inner.items():
        yield from _section(f"{name}.{key}", part, schema, level="###")


def _accepts(node: Schema, schema: Schema) -> str:
    """What a key accepts. A mapping is named only: it has a table of its own."""
    every = list(_alternatives(node, schema))
    plain = [part for part in every if "properties" not in part]
    words = [describe({"anyOf": plain}, schema)] if plain else []
    return " or ".join(["a mapping", *words] if len(plain) < len(every) else words)


def _alternatives(node: Schema, schema: Schema) -> Iterator[Schema]:
    """The parts of a node of which any one is accepted, with references resolved."""
    if "$ref" in node:
        yield from _alternatives(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
        return
    parts = node.get("anyOf") or node.get("oneOf") or ()
    for part in parts:
        yield from _alternatives(part, schema)
    if not parts:
        yield node


def _mappings(node: Schema, schema: Schema) -> Iterator[Schema]:
    """The mappings with keys of their own among what a node accepts."""
    return (part for part in _alternatives(node, schema) if "properties" in part)


def _kind(mapping: Schema) -> str | None:
    """The value of `kind` that a mapping is for; None where it has no `kind`."""
    kind: str | None = mapping["properties"].get("kind", {}).get("const")
    return kind


def _shown(value: Any, node: Schema, schema: Schema) -> str:
    """A value as YAML on one line, keys in the order of the schema; of a mapping with defaults only, its kind alone."""
    if isinstance(value, dict):
        mapping = next((part for part in _mappings(node, schema) if _kind(part) in (None, value.get("kind"))), None)
        known = mapping["properties"] if mapping else {}
        if "kind" in value and all(key == "kind" or value[key] == known[key].get("default") for key in value):
            value = value["kind"]
        else:
            value = {key: value[key] for key in sorted(value, key=[*known].index)}
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n...\n").strip()


def _text(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE
    place.write_text(reference(), encoding="utf-8")
