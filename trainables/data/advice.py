"""Refuses rows whose columns do not say what they are, with the settings that read this very file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from trainables.data.findings import listed
from trainables.data.messages import is_null, written
from trainables.data.rows import Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

_ANSWERS = ("completion", "output", "outputs", "response", "answer", "answers", "target", "assistant", "solution",
            "reply", "summary", "completions", "label", "chosen", "gpt", "result", "highlights",
            "translation")  # fmt: skip
_SYSTEMS = ("system_prompt", "system_message", "system_instruction", "system")
_PROMPTS = ("prompt", "context", "instruction", "instructions", "input", "inputs", "question",
            "query", "user", "human", "problem", "source", "document", "article", "passage", "title", "text",
            "code")  # fmt: skip
"""In the order in which a prompt of several is written."""
_QUESTIONS = ("question", "query", "prompt", "instruction")
_TEXTS = ("text", "content", "document", "body", "passage", "code", "article")
_SPEAKERS = ("role", "from", "speaker", "author", "sender", "name", "who", "user", "type")
_SAID = ("content", "value", "text", "message", "utterance", "body", "said", "msg")
_LOOKED_AT = 200
_MOST = 1000
"""Columns that are looked at: a file may have 100,000."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,2}")
"""`en`, `deu`, `pt_BR`, `zh-Hant`."""
_PLAIN = re.compile(r"[A-Za-z_][\w-]*")
_YAML = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "none"}
FORMATS = {"messages": "'messages'", "prompt-completion": "'prompt' and 'completion'"}


def unknown(rows: Rows, data: DataSettings) -> InputError:
    """The refusal of rows that have no known format."""
    formats = {**FORMATS, "text": repr(data.text_field)}
    expected = " or ".join(formats.values()) if data.format == "auto" else formats[data.format]
    return InputError(
        f"the columns are {listed(rows.rows[0]) or 'none'}",
        where=rows.where(0),
        expected=f"{expected} (TRL's formats messages, prompt-completion, text), or Alpaca's or ShareGPT's columns",
        remedy=_suggested(rows, data),
    )


def no_column(column: str, rows: Rows, data: DataSettings) -> InputError:
    """The refusal of settings that name a column which the rows do not have."""
    names = list(islice(rows.rows[0], _MOST))
    near = _nearest(column, names, [*data.columns.values()])
    remedy = ""
    if data.prompt_template and f"{{{column}}}" in data.prompt_template:
        if near:
            template = data.prompt_template.replace(f"{{{column}}}", f"{{{near}}}")
            remedy = f"set data.prompt_template to {json.dumps(template, ensure_ascii=False)}"
    else:
        wrong: list[str] = [key for key, named in data.columns.items() if named == column] or [column]
        answer = "" if near else next(iter(_named(names, _ANSWERS if wrong[0] == "completion" else _PROMPTS)), "")
        if found := near or answer:
            given: dict[str, str | None] = {k: named for k, named in data.columns.items() if k not in wrong}
            remedy = _set({**given, wrong[0]: found})
    where = "data.prompt_template" if data.prompt_template and column in data.prompt_template else "data.columns"
    return InputError(f"the rows have no column {column!r}", where=f"{rows.where(0)}, {where}",
                      expected=f"one of {listed(names)}", remedy=remedy or _suggested(rows, data))  # fmt: skip


def refuse_turns(rows: Rows, column: str, turn: Mapping[str, Any], data: DataSettings) -> None:
    """Raises InputError for turns whose keys say neither role nor content by names that are known or set."""
    role = {"role", "from", data.columns.get("role")} & turn.keys()
    content = {"content", "value", "tool_calls", "function_call", data.columns.get("content")} & turn.keys()
    if (role and content) or (keys := _turn_keys(turn)) is None:
        return
    raise InputError(f"the turns of {column!r} have {listed(turn)}", where=rows.where(0),
                     expected=f'{column!r}: a list of {{"role": ..., "content": ...}}',
                     remedy=_set({"messages": column, **keys}))  # fmt: skip


def refuse_preferences(rows: Rows, data: DataSettings) -> None:
    """Raises InputError for rows that compare answers, or judge one."""
    first = rows.rows[0]
    if data.columns or data.prompt_template:
        return
    if {"chosen", "rejected"} <= first.keys() and not ("messages" in first or "completion" in first):
        chosen = _value(rows, "chosen")
        prompt = next((name for name in _named(first, _PROMPTS) if name not in ("chosen", "rejected")), "")
        if isinstance(chosen, list) and chosen and isinstance(chosen[0], dict):
            begins = str(chosen[0].get("role", chosen[0].get("from", ""))).lower()
            whole = not prompt or begins in ("system", "user", "human")
        else:
            whole = not prompt
        key = "messages" if isinstance(chosen, list) else "text"
        columns = {key: "chosen"} if whole else {"prompt": prompt, "completion": "chosen"}
        raise InputError("these are preference rows, a chosen and a rejected answer each", where=rows.where(0),
                         expected="one answer to learn: fine-tuning does not compare answers",
                         remedy=f"{_set(columns)} to learn the chosen answers alone")  # fmt: skip
    if {"prompt", "completion", "label"} <= first.keys() and isinstance(_value(rows, "label"), bool):
        raise InputError("these are preference rows, each an answer with a label true or false", where=rows.where(0),
                         expected="answers to learn: fine-tuning would learn those with false too",
                         remedy=f"{_set({'prompt': 'prompt', 'completion': 'completion'})} to learn all of them, or "
                         "leave out those with false before")  # fmt: skip


def _suggested(rows: Rows, data: DataSettings) -> str:
    """Settings with which these rows are read; "" where no column has a text."""
    first = rows.rows[0]
    samples = _samples(rows, list(islice(first, _MOST)))
    if data.format in ("auto", "messages"):
        for name, value in samples.items():
            if not isinstance(value, list) or not value or not isinstance(value[0], dict):
                continue
            if (keys := _turn_keys(value[0])) is not None:
                return _set({"messages": name, **keys})
    texts = [name for name, value in samples.items() if written(value) is not None and not is_null(value)]
    known = _exactly(texts, _ANSWERS) or _exactly(texts, _TEXTS)
    if not known and (paths := _paths(samples)) and (found := _suggested(rows.with_paths(paths), data)):
        return found
    if data.format in ("auto", "prompt-completion") and (found := _asked_and_answered(texts, samples)):
        return found
    if data.format == "messages" and texts and _asked_and_answered(texts, samples):
        return "set data.format to auto and data.as_chat to true; " + _asked_and_answered(texts, samples)
    strings = [name for name in texts if isinstance(samples[name], str)]
    if data.format in ("auto", "prompt-completion") and not known and (found := _translated(samples)):
        return found
    if deep := _rows_within(samples):
        return deep
    nested = [name for name, value in samples.items() if isinstance(value, dict | list)]
    if data.format in ("auto", "text") and strings:
        near = _named(strings, _TEXTS)
        if nested and (not near or _named(nested, _ANSWERS)):  # what is meant is in there
            return ""
        near = near or (strings if len(samples) == 1 else [])
        if near:
            return f"set data.text_field to {yaml_name(near[0])} if it holds the text"
    if rows.source.lower().endswith((".csv", ".tsv")):
        return "write a first line with the columns' names, prompt and completion, if the file has none"
    return ""


def _paths(samples: Mapping[str, Any]) -> list[str]:
    """The paths of what lies in objects within a row."""
    found: list[str] = []
    pending = [(name, value) for name, value in samples.items() if isinstance(value, dict) and "." not in name]
    while pending and len(found) < _MOST:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            pending += [(f"{path}.{key}", inner) for key, inner in islice(value.items(), _MOST) if "." not in key]
        else:
            found.append(path)
    return found


def _asked_and_answered(texts: list[str], samples: Mapping[str, Any]) -> str:
    """A mapping of columns of text to prompt and completion; "" where none is an answer and another a prompt."""
    answer = next(iter(_named(texts, _ANSWERS)), "")
    asks = [name for name in _named(texts, _PROMPTS) if name != answer]
    if not answer and _named(samples, _ANSWERS):  # an answer that is no text
        return ""
    if not answer and len(texts) == 2 and all(isinstance(samples[name], str) for name in texts) and asks:
        answer = next(name for name in texts if name != asks[0])
    if not asks and answer:
        others = [name for name in texts if name != answer and isinstance(samples[name], str)]
        asks = others if len(others) == 1 else []
    if not answer or not asks:
        return ""
    columns: dict[str, str | None] = {"completion": answer}
    if (system := next(iter(_exactly(texts, _SYSTEMS)), "")) not in ("", "system"):
        columns = {"system": system, **columns}
    more = [name for name in texts if name not in (*asks, answer, system)]
    unread = f" ({listed(more, 6)} {'is' if len(more) == 1 else 'are'} then not read)" if more else ""
    if len(asks) == 1:
        return _set({"prompt": asks[0], **columns}) + unread
    if any(set("{}:!") & set(name) for name in asks):
        return ""
    template = "\n\n".join(f"{{{name}}}" for name in asks) + "\n\n"
    written_with = f"set data.prompt_template to {json.dumps(template, ensure_ascii=False)}"
    return f"{written_with}; {_set(columns)}{unread}"


def _translated(samples: Mapping[str, Any]) -> str:
    """A mapping of two texts of an object by language, as files of translations have them; "" where there is none."""
    for name, inner in samples.items():
        if not isinstance(inner, dict) or "." in name or not 2 <= len(inner) <= _MOST:
            continue
        if all(isinstance(text, str) and _LANGUAGE.fullmatch(key) for key, text in inner.items()):
            one, other = (f"{name}.{key}" for key in islice(inner, 2))
            others = "the other way round" if len(inner) == 2 else "another pair of them"
            return f"{_set({'prompt': one, 'completion': other})}, or {others}"
    return ""


def _rows_within(samples: Mapping[str, Any]) -> str:
    """The file to make of one whose questions lie in lists within a row, as in SQuAD's paragraphs; "" for any other. A
    path leads to one value of a row, and no setting makes several rows of one."""
    path, asked, level = "", list[str](), dict(samples)
    while name := next((key for key, inner in level.items() if _holds_objects(inner)), ""):
        asked += [key for key in _exactly(level, _PROMPTS) if isinstance(level[key], str) and key.lower() != "title"]
        answer = next(iter(_exactly(level, _ANSWERS)), "")
        if path and answer and _exactly(level, _QUESTIONS):
            said = next(iter(_exactly(level[answer][0], _SAID)), "") if _holds_objects(level[answer]) else ""
            answer += f"[0].{said}" if said else ""
            return (f"write a file with a line for each object of {path}: {{\"prompt\": {' and '.join(asked)}, "
                    f"\"completion\": {answer}}}")  # fmt: skip
        path, level = f"{path}.{name}[]".lstrip("."), level[name][0]
    return ""


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _turn_keys(turn: Mapping[str, Any]) -> dict[str, str] | None:
    """The keys of a turn that hold role and content, where they are not called so; None where there are none."""
    role = next(iter(_named(turn, _SPEAKERS)), "")
    content = next((name for name in _named(turn, _SAID) if name != role), "")
    if not role or not content:
        return None
    usual = (role, content) in (("role", "content"), ("from", "value"))
    return {} if usual else {"role": role, "content": content}


def _named(names: Iterable[str], known: tuple[str, ...]) -> list[str]:
    """Those of `names` that are one of `known`, in the order of `known`; then those that are nearly one."""
    names = list(names)
    if exact := _exactly(names, known):
        return exact
    low = _plainly(names)
    near = ((difflib.get_close_matches(name, known, n=1, cutoff=0.8), low[name]) for name in low)
    return [name for found, name in near if found]


def _exactly(names: Iterable[str], known: tuple[str, ...]) -> list[str]:
    low = _plainly(names)
    return [low[name] for name in known if name in low]


def _plainly(names: Iterable[str]) -> dict[str, str]:
    """The names in lower case; a path by its last word, and `answers.text` by its first too."""
    paths = [(name, name.split(".")) for name in reversed([*names])]
    outer = [(parts[-2], name) for name, parts in paths if len(parts) > 1 and parts[-1].lower() in _SAID]
    words = [*outer, *((parts[-1], name) for name, parts in paths)]
    return {re.sub(r"[\W_]+", "_", word.lower()).strip("_"): name for word, name in words}


def _nearest(wanted: str, names: list[str], taken: list[str | None]) -> str:
    free = {name.lower(): name for name in names if name not in taken}
    found = difflib.get_close_matches(wanted.lower(), free, n=1, cutoff=0.7)
    return free[found[0]] if found else ""


def _samples(rows: Rows, names: list[str]) -> dict[str, Any]:
    """The first value of each column that is not null. Rows are decoded once: a wide one takes 0.1 s."""
    found: dict[str, Any] = dict.fromkeys(names)
    left = names
    for row in islice(iter(rows.rows), _LOOKED_AT):
        found |= {name: row[name] for name in left if not is_null(row.get(name))}
        left = [name for name in left if found[name] is None]
        if not left:
            break
    return found


def _value(rows: Rows, column: str) -> Any:
    values = (row.get(column) for row in islice(iter(rows.rows), _LOOKED_AT))
    return next((value for value in values if not is_null(value)), None)


def _set(columns: Mapping[str, str | None]) -> str:
    return f"set data.columns to {{{', '.join(f'{key}: {yaml_name(name)}' for key, name in columns.items())}}}"


def yaml_name(name: str | None) -> str:
    """A column's name as a search file has it, in quotes where YAML needs them."""
    if name is None:
        return "null"
    plain = _PLAIN.fullmatch(name) and name.lower() not in _YAML
    return name if plain else json.dumps(name, ensure_ascii=False)
