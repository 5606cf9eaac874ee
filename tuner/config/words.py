"""Says in words what JSON Schema accepts at a key, and which key a misspelt name was meant to be.

Error messages are written from the same schema that editors read, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuner.config.document import KeyPath, kind_of
from tuner.error_text import nearest

Schema = Mapping[str, Any]
"""A JSON Schema, or one node of it."""

MOST_SHOWN = 80
"""Characters that a message shows of a name that somebody wrote; the longest name of a setting has about 40."""


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """The text, cut where it is longer than a message can show."""
    return text if len(text) <= most else text[: most - 1] + "…"


def dotted(key: KeyPath) -> str:
    """`train.target_modules[1]` for ("train", "target_modules", 1)."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{shortened(part)}" for part in key).lstrip(".")


def listed(names: Iterable[str], most: int = 16) -> str:
    """`a, b, c`, and the number of the rest where there are many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def got(value: Any) -> str:
    """A value as an error shows it: `'many' (text)`, `0`, `a list`."""
    if value is None or isinstance(value, list | tuple | Mapping):
        return "an empty list" if value == [] else kind_of(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"{value[:60] + '…' if len(value) > 60 else value!r} (text)"
    return repr(value)


def describe(node: Schema, root: Schema) -> str:
    """What a schema node accepts: "an integer >= 1", "one of linear, cosine", "text or null"."""
    words: list[str] = []
    constants: list[str] = []
    for part in _alternatives(node, root):
        if "const" in part or "enum" in part:
            values = part["enum"] if "enum" in part else [part["const"]]
            constants += [_plain(value) for value in values if _plain(value) not in constants]
        elif word := _one(part, root):
            words += [word] if word not in words else []
    if constants:
        words.insert(0, constants[0] if len(constants) == 1 else f"one of {', '.join(constants)}")
    if "a number" in words and "an integer" in words:
        words.remove("an integer")
    if "null" in words:
        words.append(words.pop(words.index("null")))
    return " or ".join(words)


def node_at(root: Schema, key: KeyPath, data: Any = None) -> Schema | None:
    """The schema of the value at `key`; `data` decides between alternatives by their `kind`."""
    node: Schema | None = root
    for part in key:
        node = next(_children(node or {}, part, data, root), None)
        if node is None:
            return None
        data = _child(data, part)
    return node


def keys_at(root: Schema, key: KeyPath, data: Any = None) -> list[str]:
    """The valid names below `key`."""
    node = node_at(root, key, data)
    for part in key:
        data = _child(data, part)
    names: dict[str, None] = {}
    for alternative in _matching(node or {}, data, root):
        names.update(dict.fromkeys(alternative.get("properties", ())))
    return list(names)


def key_paths(root: Schema) -> Iterator[KeyPath]:
    """Every key of at most 5 levels in the schema, those of fewer levels first."""
    pending: list[tuple[KeyPath, Schema]] = [((), root)]
    while pending:
        key, node = pending.pop(0)
        for alternative in _alternatives(node, root):
            for name, child in alternative.get("properties", {}).items():
                yield (*key, name)
                if len(key) < 4:
                    pending.append(((*key, name), child))


def path_keys(root: Schema) -> list[KeyPath]:
    """The keys that may hold a path: those a program marks with `json_schema_extra={"format": "path"}`."""
    return [key for key in key_paths(root) if (node_at(root, key) or {}).get("format") == "path"]


def meant(root: Schema, parent: KeyPath, name: str, data: Any = None) -> str | None:
    """The key that an unknown `name` under `parent` was probably meant to be: a sibling, or one of another section."""
    leaves: dict[str, KeyPath] = {}
    for key in key_paths(root):
        if len(key) > 1 and key != (*parent, name):  # the unknown key itself is valid for another `kind`
            leaves.setdefault(str(key[-1]), key)
    if parent and name in leaves:
        return dotted(leaves[name])
    siblings = keys_at(root, parent, data)
    if sibling := nearest(name, siblings):
        return sibling if parent else dotted((sibling,))
    leaf = nearest(name, leaves, cutoff=0.85)  # a name in another section must be nearly the same
    return dotted(leaves[leaf]) if leaf else None


def _one(node: Schema, root: Schema) -> str:
    """What a node without alternatives accepts; empty if it does not say."""
    kind = node.get("type")
    if kind in ("integer", "number"):
        signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        bounds = [f"{sign} {_plain(node[name])}" for name, sign in signs if name in node]
        return " ".join(["an integer" if kind == "integer" else "a number", " and ".join(bounds)]).rstrip()
    if kind == "array":
        items = describe(node.get("items", {}), root)
        return ("a list" + (", not empty" if node.get("minItems") else "")) + (f", of {items}" if items else "")
    if kind == "object":
        known = node.get("properties", {})
        return f"a mapping with {listed(known)}" if known else "a mapping"
    if kind == "string":
        return f"text like {node['pattern']}" if "pattern" in node else "text"
    return {"boolean": "true or false", "null": "null"}.get(str(kind), "")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _alternatives(node: Schema, root: Schema) -> Iterator[Schema]:
    """The node without references: itself, or each member of its union."""
    if "$ref" in node:
        target: Any = root
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        yield from _alternatives(target, root)
        return
    for name in ("anyOf", "oneOf", "allOf"):
        if name in node:
            for part in node[name]:
                yield from _alternatives(part, root)
            return
    yield node


def _matching(node: Schema, data: Any, root: Schema) -> list[Schema]:
    """The alternatives for the `kind` (or `type`) in the data; all of them if it names none."""
    alternatives = list(_alternatives(node, root))
    if isinstance(data, Mapping):
        for tag in ("kind", "type"):
            matching = [
                part
                for part in alternatives
                if tag in data and part.get("properties", {}).get(tag, {}).get("const") == data[tag]
            ]
            if matching:
                return matching
    return alternatives


def _children(node: Schema, part: str | int, data: Any, root: Schema) -> Iterator[Schema]:
    """The nodes for the value at `part` of a value that `node` describes: one for each alternative that has it."""
    for alternative in _matching(node, data, root):
        if isinstance(part, int):
            if "items" in alternative:
                yield alternative["items"]
        elif part in alternative.get("properties", {}):
            yield alternative["properties"][part]
        elif isinstance(alternative.get("additionalProperties"), Mapping):
            yield alternative["additionalProperties"]


def _child(data: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return data[part] if isinstance(data, list) and part < len(data) else None
    return data.get(part) if isinstance(data, Mapping) else None
