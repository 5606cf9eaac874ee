"""Writes the rows of a search as one page of HTML: light and dark, no script, and no request to anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from tuner.contract import Finding, Look, Piece, RowSet, ShownRow
from tuner.error_text import shown_path
from tuner.report import formatting as words
from tuner.report.data import bin_label, counted, lengths_text, visible
from tuner.report.page.document import definitions, document, escaped

_STYLE = """\
.figures { display: flex; flex-wrap: wrap; gap: 2rem; align-items: start; margin: .75rem 0; }
tr.ours td { font-weight: bold; }
.bar { display: inline-block; height: .8rem; background: var(--bar); min-width: 1px; vertical-align: middle; }
td.bars { text-align: left; width: 16rem; }
li.warn b { color: var(--warn); }
li.bad b { color: var(--bad); }
article { border: 1px solid var(--rule); border-radius: 6px; margin: .75rem 0; overflow: hidden; }
article header { background: var(--card); padding: .3rem .75rem; }
article header em { color: var(--warn); font-style: normal; }
pre { margin: 0; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, monospace; unicode-bidi: plaintext; }
mark { background: var(--learned); color: var(--learned-text); border-radius: 2px; }
del { color: var(--soft); text-decoration: line-through; }
i { color: var(--soft); }
"""
_STYLES = {"refused": "bad", "left out": "warn", "cut": "warn", "told": "warn"}
_PICTURE = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+")
_LABELS = {"refused": "Wrong", "left out": "Left out", "cut": "Cut", "told": "Note"}


def page(look: Look, note: str = "") -> str:
    """The page. note: a sentence for the user. Everything in it that others wrote is escaped."""
    sources = ", ".join(dict.fromkeys(shown_path(found.source) for found in look.sets))
    facts = {**look.facts, "tokenizer": shown_path(look.tokenizer), **({"note": note} if note else {})}
    body = [f"<h1>{escaped(sources)}</h1>", definitions(facts)]
    if look.findings:
        body.append(_findings(look.findings))
    body += [_set(found, look) for found in look.sets]
    rows = [row for found in look.sets for row in found.shown]
    if rows:
        legend = "<mark>learned</mark>, not learned, <del>cut off</del>"
        body += [f"<h2>Rows <small>{legend}</small></h2>", *(_row(row, look) for row in rows)]
    return document(f"Rows of {sources}", body, _STYLE)


def _findings(findings: Sequence[Finding]) -> str:
    items = []
    for one in findings:
        more = ["…"] if 0 < len(one.examples) < one.count and one.kind != "told" else []
        told = "; ".join(escaped(text[:400]) for text in [*one.examples, *more])
        rows = f"{one.count:,} row{'' if one.count == 1 else 's'}"
        examples = f' <span class="soft">({told})</span>' if told else ""
        remedy = f"<br>{escaped(one.remedy)}" if one.remedy else ""
        label = f"<b>{_LABELS[one.kind]}:</b>"
        items.append(f'<li class="{_STYLES[one.kind]}">{label} {rows} {escaped(one.what)}{examples}{remedy}</li>')
    return f"<ul>{''.join(items)}</ul>"


def _set(found: RowSet, look: Look) -> str:
    out = [f"<h2>{escaped(found.name)} <small>{escaped(shown_path(found.source))}</small></h2>"]
    facts = {"rows": counted(found)}
    if found.tokens:
        share = words.whole_percent(found.learned / found.tokens)
        facts["tokens"] = f"{found.tokens:,}, {found.learned:,} of them learned ({share})"
        facts["length"] = lengths_text(found)
        if found.unknown is not None:
            facts["unknown"] = f"{found.unknown:,} tokens ({words.percent(found.unknown / found.tokens)})"
    out.append(definitions({**facts, **found.figures}))
    if found.lengths:
        out.append(f'<div class="figures">{_histogram(found) if found.histogram else ""}{_at(found, look)}</div>')
    if found.findings:
        out.append(_findings(found.findings))
    return "\n".join(out)


def _histogram(found: RowSet) -> str:
    most = max(one.rows for one in found.histogram)
    rows = "".join(
        f'<tr><th scope="row">{bin_label(one)}</th><td class="bars"><span class="bar" '
        f'style="width: {one.rows / most * 100:.1f}%"></span></td><td>{one.rows:,}</td></tr>'
        for one in found.histogram
    )
    return f"<table><caption>Rows by tokens</caption>{rows}</table>"


def _at(found: RowSet, look: Look) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "rows cut", "left out", "learned tokens lost"))
    rows = []
    for one in found.at:
        ours = ' class="ours"' if one.length == look.limit else ""
        totals = ((one.cut, found.looked), (one.left_out, found.looked), (one.lost, found.learned))
        cells = (f"{n:,} ({words.whole_percent(n / total)})" if n and total else "–" for n, total in totals)
        rows.append(f"<tr{ours}><td>{one.length:,}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    caption = f"With another {escaped(look.limit_name)} (now {look.limit:,})"
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(rows)}</table>"


def _row(row: ShownRow, look: Look) -> str:
    fate = f" · <em>{escaped(row.fate)}</em>" if row.fate else ""
    head = f"{escaped(row.place)} · {row.tokens:,} tokens, {row.learned:,} learned{fate}"
    text = "".join(_piece(piece) for piece in row.pieces)
    images = "".join(f'<img src="{escape(uri)}" alt="">' for uri in row.pictures if _PICTURE.fullmatch(uri))
    return f"<article><header>{head}</header>{images}<pre>{text}</pre></article>"


def _piece(piece: Piece) -> str:
    hidden = f"<i>… {piece.hidden:,} tokens …</i>" if piece.hidden else ""
    text = f"{escape(visible(piece.text))}{hidden}{escape(visible(piece.tail))}"
    text = f"<mark>{text}</mark>" if piece.learned else text
    return f"<del>{text}</del>" if piece.beyond else text
