"""Turns pydantic's findings into `InputError`s that give the file, line and key, what was got and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tuner.config.document import KeyPath
from tuner.config.flags import FLAGS
from tuner.config.words import Schema, describe, dotted, got, keys_at, listed, meant, node_at, shortened
from tuner.contract import InputError
from tuner.error_text import nearest

Where = Callable[[KeyPath], str]
"""Gives the place where a key was written, as error messages name it."""
Model = TypeVar("Model", bound=BaseModel)

MOST_TOLD = 20
"""Errors in one input that are explained: the first ones in it. To find the key that was meant takes 2 ms for each,
and nobody reads two thousand errors."""


def checked(
    model: type[Model], data: Mapping[str, Any], schema: Schema, where: Where, at: KeyPath = ()
) -> tuple[Model | None, list[InputError]]:
    """The value at key `at` of `data` as an instance of `model`; or None and an error for every wrong key.

    schema: of `data`; the errors say what it accepts.
    """
    try:
        # Strict, whatever the model says: pydantic would take `yes` for true, and true for the number 1.
        return model.model_validate(_written(data, at), strict=True), []
    except ValidationError as error:
        return None, translated(error, data, schema, where, at)
    except InputError as error:
        place = error.where or where(())
        return None, [InputError(error.what, where=place, expected=error.expected, remedy=error.remedy)]


def combined(errors: Sequence[InputError]) -> InputError:
    """Several errors as one: the first `MOST_TOLD` of them, each with its place, and how many more there are."""
    if len(errors) == 1:
        return errors[0]
    first = sorted(errors, key=lambda error: _place(error.where))[:MOST_TOLD]
    lines = [f"  {line}" for error in first for line in str(error).splitlines()]
    if len(errors) > len(first):
        lines.append(f"  and {len(errors) - len(first):,} more")
    return InputError("\n".join([f"{len(errors):,} errors in the input", *lines]))


def _place(where: str) -> tuple[str, int]:
    """The file and the line, to sort errors by."""
    source, _, line = where.rpartition(":")
    return (source, int(line)) if line.isdigit() else (where, 0)


def explained(keys: Iterable[KeyPath], where: Where, explain: Callable[[KeyPath], InputError]) -> list[InputError]:
    """An error for each key: from `explain` for the first `MOST_TOLD` in the file; a short one for each of the others,
    which `combined` only counts."""
    placed = [(_place(where(key)), key) for key in keys]
    first = {key for _, key in sorted(placed, key=lambda one: one[0])[:MOST_TOLD]}
    return [
        explain(key) if key in first else InputError(f"`{dotted(key)}` is not valid", where=where(key))
        for _, key in placed
    ]


def translated(
    error: ValidationError, data: Mapping[str, Any], schema: Schema, where: Where, at: KeyPath = ()
) -> list[InputError]:
    """One InputError for each key that pydantic complains about, in the order of its complaints."""
    by_key: dict[KeyPath, list[Any]] = {}
    for finding in error.errors(include_url=False):
        by_key.setdefault(_written_key((*at, *finding["loc"]), finding["type"], data), []).append(finding)
    return explained(by_key, where, lambda key: _error_at(key, by_key[key], data, schema, where))


def unknown_keys(keys: Iterable[KeyPath], data: Mapping[str, Any], schema: Schema, where: Where) -> list[InputError]:
    """An error for each of these keys, which the schema does not have."""
    return explained(keys, where, lambda key: _unknown(key, data, schema, where(key)))


def _error_at(key: KeyPath, findings: list[Any], data: Mapping[str, Any], schema: Schema, where: Where) -> InputError:
    """One error for all of pydantic's findings at a key."""
    # A plain union (`int | str`) yields a finding for each of its members; one whose own message is best wins.
    finding = next((one for one in findings if one["type"] in _OWN_MESSAGE), findings[0])
    kind, value = finding["type"], finding["input"]
    node = node_at(schema, key, data)
    accepts = describe(node, schema) if node else ""
    if kind == "extra_forbidden":
        return _unknown(key, data, schema, where(key))
    if kind == "missing":
        note = " ".join(str((node or {}).get("description", "")).split()).removesuffix(".")
        flag = next((flag for flag, name in FLAGS.items() if name == dotted(key)), "")
        return InputError(
            f"`{dotted(key)}` is missing",
            where=where(key),
            expected=f"{accepts} ({note})" if note else accepts,
            remedy=f"{flag} on the command line, or in the file" if flag else "",
        )
    if kind == "union_tag_invalid":
        tag = str(finding["ctx"]["discriminator"]).strip("'")
        tags = [part.strip(" '") for part in str(finding["ctx"]["expected_tags"]).split(",")]
        if isinstance(_written(data, key), Mapping):  # and not the bare word for `{kind: word}`
            key = (*key, tag)
        return _refused(key, finding["ctx"]["tag"], f"one of {', '.join(tags)}", where(key), tags)
    if kind == "expected":
        return _refused(key, value, finding["msg"], where(key))
    if kind in _OWN_MESSAGE:
        message = str(finding.get("ctx", {}).get("error", finding["msg"]))
        return InputError(f"{dotted(key)}: {message}" if key else message, where=where(key))
    written = _written(data, key) if key else value
    return _refused(key, written, accepts or finding["msg"].lower(), where(key), _constants(node, schema))


_OWN_MESSAGE = ("value_error", "assertion_error", "expected", "extra_forbidden", "union_tag_invalid")
"""Types of findings that say more than what the schema accepts. "expected" is ours (`tuner/config/sections.py`)."""


def _unknown(key: KeyPath, data: Mapping[str, Any], schema: Schema, where: str) -> InputError:
    parent, name = key[:-1], str(key[-1])
    told = shortened(name)
    what = f"unknown key `{told}` in `{dotted(parent)}`" if parent else f"unknown section `{told}`"
    holder = _written(data, parent)
    if parent and isinstance(holder, Mapping) and isinstance(holder.get("kind"), str):
        what += f" of kind {holder['kind']}"
    if guess := meant(schema, parent, name, data):
        return InputError(f"{what}; did you mean `{guess}`?", where=where)
    known = keys_at(schema, parent, data)
    return InputError(what, where=where, expected=f"{'one of' if len(known) > 1 else 'only'} {listed(known)}")


def _refused(key: KeyPath, value: Any, expected: str, where: str, names: Sequence[str] = ()) -> InputError:
    what = f"{dotted(key)}: got {got(value)}" if key else f"got {got(value)}"
    guess = nearest(value, names) if isinstance(value, str) else None
    # YAML reads `init_lora_weights: true` as a boolean; the valid value is the text "true".
    quoted = f'"{got(value)}" in quotes' if isinstance(value, bool) and got(value) in names else ""
    return InputError(
        f"{what}; did you mean `{guess}`?" if guess else what, where=where, expected=expected, remedy=quoted
    )


def _constants(node: Schema | None, schema: Schema) -> list[str]:
    """The words that a node accepts, if it accepts one of several."""
    accepts = describe(node, schema) if node else ""
    first = accepts.split(" or ")[0]
    return first.removeprefix("one of ").split(", ") if first.startswith("one of ") else []


def _written_key(loc: tuple[int | str, ...], kind: str, data: Any) -> KeyPath:
    """pydantic's location as a key of `data`: without the names of union members, which are not in the file."""
    key: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if _holds(data, part):
            data = data[part]
        elif not (last and kind == "missing"):
            continue
        key.append(part)
    return tuple(key)


def _holds(data: Any, part: int | str) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _written(data: Any, key: KeyPath) -> Any:
    """The value at `key` of `data`; None if there is none."""
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
