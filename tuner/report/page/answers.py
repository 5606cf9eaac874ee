"""What the model says: the last evaluation of a run, as a section of its page.

The evaluation is a file of the run folder, into which anybody may have written: what has another shape is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuner.report import formatting as words
from tuner.report.lines import clean, shorten
from tuner.report.page.document import escaped

STYLE = """\
.answers { border: 1px solid var(--rule); border-radius: 6px; background: var(--card); padding: .4rem .9rem;
  margin: .5rem 0; }
.answers p { margin: .2rem 0; }
"""
_ROWS = 12
"""Rows that are shown, at most."""
_COLUMNS = 8
_LONGEST = 600
"""Characters of a text."""


def section(evaluation: Mapping[str, Any]) -> list[str]:
    """The measures of all candidates, and what they answer to some rows; nothing where nothing was evaluated."""
    candidates = [one for one in _list(evaluation.get("candidates")) if isinstance(one, Mapping)][:_COLUMNS]
    names = [_text(one.get("name")) for one in candidates]
    if not any(names):
        return []
    rows, answers = evaluation.get("rows"), evaluation.get("answers")
    told = (
        f"{_text(evaluation.get('data'))}: {_number(rows)} rows, answers to {_number(answers)}; 95% intervals over rows"
    )
    out = ["<h2>What the model says</h2>", f'<p class="told">{escaped(told)}</p>', _measures(candidates, names)]
    shown = list(_examples(evaluation))[:_ROWS]
    return [*out, *(_example(one, names) for one in shown)]


def _measures(candidates: list[Mapping[str, Any]], names: list[str]) -> str:
    measured = [one.get("measures") for one in candidates]
    known = [found if isinstance(found, Mapping) else {} for found in measured]
    heads = "".join(f'<th scope="col">{escaped(name)}</th>' for name in ("", *names))
    body = ""
    for title in list(dict.fromkeys(name for found in known for name in found))[:40]:
        cells = "".join(f"<td>{escaped(_estimate(found.get(title)))}</td>" for found in known)
        body += f'<tr><th scope="row">{escaped(_text(title))}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _examples(evaluation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The rows that changed most, better and worse, and then the others, each once."""
    changed = evaluation.get("changed")
    both = changed if isinstance(changed, Mapping) else {}
    seen: set[str] = set()
    for one in (*_list(both.get("better")), *_list(both.get("worse")), *_list(evaluation.get("answered"))):
        if isinstance(one, Mapping) and (place := _text(one.get("row"))) not in seen:
            seen.add(place)
            yield one


def _example(one: Mapping[str, Any], names: list[str]) -> str:
    said = one.get("answers")
    answers = said if isinstance(said, Mapping) else {}
    texts = [("prompt", _text(one.get("prompt"))), ("reference", _text(one.get("reference")))]
    texts += [(name, _text(answers.get(name)) or "(nothing)") for name in names]
    rows = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in texts)
    return f'<div class="answers"><p class="soft">{escaped(_text(one.get("row")))}</p><dl>{rows}</dl></div>'


def _estimate(value: Any) -> str:
    if not isinstance(value, Mapping) or not _is_number(value.get("value")):
        return "missing"
    told = words.measured(value["value"])
    ends = (value.get("low"), value.get("high"))
    return f"{told} ({' to '.join(map(words.measured, ends))})" if all(map(_is_number, ends)) else told


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "?"


def _text(value: Any) -> str:
    return shorten(clean(value), _LONGEST) if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
