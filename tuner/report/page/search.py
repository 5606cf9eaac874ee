"""The report of a search as one page of HTML."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tuner.contract import Status
from tuner.report import formatting as words
from tuner.report.facts import Facts, share_of
from tuner.report.figures import FIGURES
from tuner.report.figures.drawing import BY_NUMBER, told_of
from tuner.report.lines import clean, shorten
from tuner.report.page import answers
from tuner.report.page.document import data_script, definitions, document, escaped
from tuner.report.table import ending, label_of, shown_values
from tuner.results.records import TrialRecord

MOST_BYTES = 5_000_000
"""The size of the page stays below this."""
ROWS = 1000
"""The most rows of the leaderboard; fewer where the page would be too large."""
_LONGEST = 200
"""Characters of an ending and of a note."""

_STYLE = """\
.cards { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; margin: 1rem 0; }
@media (max-width: 48rem) { .cards { grid-template-columns: minmax(0, 1fr); } }
.card { border: 1px solid var(--rule); border-radius: 6px; background: var(--card); padding: .6rem .9rem; }
.card h2 { font-size: .85rem; font-weight: 600; color: var(--soft); margin: 0 0 .2rem; }
.card p { margin: .2rem 0; overflow-wrap: anywhere; }
.card.wide { grid-column: 1 / -1; }
.lead { font-size: 1.15rem; font-weight: 600; }
.good { color: var(--good); }
.warn { color: var(--warn); }
code { display: block; font: 13px/1.6 ui-monospace, monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll.tall { max-height: 34rem; overflow-y: auto; border: 1px solid var(--rule); border-radius: 6px; }
.scroll.tall thead th { position: sticky; top: 0; background: var(--card); }
table.sortable { width: 100%; }
th button { all: unset; cursor: pointer; white-space: nowrap; }
th button:focus-visible { outline: 2px solid var(--bar); }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
td { white-space: nowrap; }
td:last-child, th:last-child { text-align: left; }
tr.best td { color: var(--good); font-weight: 600; }
tr.behind td { color: var(--soft); }
.slices { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: .5rem; }
.plot { min-width: 0; }
p.told { color: var(--soft); margin: 0 0 .25rem; }
"""


def page(facts: Facts) -> str:
    """The page. plotly must be installed. Everything in it that others wrote is escaped."""
    library, packed = _library()
    script = (importlib.resources.files(__package__) / "report.js").read_text("utf-8")
    figures, sections = _figures(facts)
    made = ""
    for rows in (ROWS, ROWS // 4, ROWS // 20):
        body = [
            *_first(facts),
            *_leaderboard(facts, rows),
            *sections,
            *answers.section(facts.evaluation),
            *_reproduce(facts),
            '<noscript><p class="warn">The plots need JavaScript.</p></noscript>',
            data_script("figures", figures),
            data_script("trials", _told(facts, figures)),
            f'<script type="text/plain" id="library">{packed}</script>',
            f"<script>{script}</script>",
        ]
        made = document(
            f"Report of {facts.record.name or facts.place.name}", body, _STYLE + answers.STYLE, [script, library]
        )
        if len(made.encode()) < MOST_BYTES:
            break
    return made


@lru_cache(maxsize=1)
def _library() -> tuple[str, str]:
    """The script that draws plots, as it is and compressed: 4.8 MB become 1.9."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    return library, base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode()


def _first(facts: Facts) -> list[str]:
    """The first screen: best, noise, what mattered, cost, next step."""
    record = facts.record
    best = record.best
    name = record.name or facts.place.name
    out = [f"<h1>{escaped(name)}</h1>", f'<p class="soft">{escaped(" · ".join(facts.headline))}</p>']
    values = "".join(
        f"<dt>{escaped(label_of(key, facts.labels))}</dt><dd>{escaped(words.value(value))}</dd>"
        for key, value in (best.params if best else {}).items()
    )
    won = f'<p class="lead{" good" if best else " warn"}">{escaped(facts.best)}</p>'
    found = facts.found.sentences or ["too few trials to say which parameters mattered"]
    mattered = "".join(f"<p>{escaped(one)}</p>" for one in found)
    commands = "".join(f"<code>{escaped(one)}</code>" for one in facts.next)
    return [
        *out,
        '<div class="cards">',
        f'<section class="card wide"><h2>Best</h2>{won}<dl>{values}</dl></section>',
        f'<section class="card"><h2>Noise</h2><p>{escaped(facts.noise)}</p></section>',
        f'<section class="card"><h2>Cost</h2>{definitions(facts.cost)}</section>',
        f'<section class="card wide"><h2>What mattered</h2>{mattered}</section>',
        f'<section class="card wide"><h2>Next</h2>{commands}</section>',
        "</div>",
    ]


def _leaderboard(facts: Facts, rows: int) -> list[str]:
    record = facts.record
    trials = record.leaderboard
    heads = ["trial", *(label_of(name, facts.labels) for name in facts.names)]
    heads += [objective.heading for objective in record.objectives]
    heads += ["step", "tokens", "time", "ending"]
    head = "".join(f'<th scope="col"><button type="button">{escaped(shorten(one, 40))}</button></th>' for one in heads)
    body = "".join(_row(facts, trial) for trial in trials[:rows])
    left = len(trials) - min(rows, len(trials))
    note = f'<p class="told">{left:,} more trials: --format csv has all of them.</p>' if left else ""
    return [
        "<h2>Leaderboard <small>a click on a heading sorts</small></h2>",
        f'<div class="scroll tall"><table class="sortable"><thead><tr>{head}</tr></thead>',
        f"<tbody>{body}</tbody></table></div>",
        note,
    ]


def _row(facts: Facts, trial: TrialRecord) -> str:
    record = facts.record
    cells = [_cell(str(trial.number), trial.number)]
    for name in facts.names:
        value = trial.params.get(name)
        shown = shorten(clean(words.value(value)), 40) if name in trial.params else ""
        cells.append(_cell(shown, value if isinstance(value, int | float) and not isinstance(value, bool) else None))
    cells += [_cell(words.measured(value), value) for value in shown_values(trial, record.objectives)]
    cells.append(_cell(f"{trial.step}/{trial.max_steps}" if trial.max_steps else str(trial.step), trial.step))
    cells.append(_cell(words.count(trial.tokens) if trial.tokens else "", trial.tokens))
    seconds = trial.seconds(record.updated or 0.0)
    cells.append(_cell(words.clock(seconds) if seconds else "", round(seconds, 1)))
    cells.append(_cell(shorten(ending(trial), _LONGEST)))
    kind = "best" if trial is record.best else "" if trial.status is Status.COMPLETED else "behind"
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _cell(shown: str, value: float | None = None) -> str:
    """A cell. value: what it is sorted by, in place of its text."""
    sort = "" if value is None else f' data-value="{value if math.isfinite(value) else ""}"'
    return f"<td{sort}>{escaped(shown)}</td>"


def _figures(facts: Facts) -> tuple[dict[str, Any], list[str]]:
    """The plots by the id of their place, and the sections with these places."""
    figures: dict[str, Any] = {}
    sections = []
    for name, registered in FIGURES.items():
        try:
            made = registered.draw(facts)
        except Exception as error:  # a ledger that contradicts itself: the other plots and all text are as good as ever
            why = shorten(clean(f"{type(error).__name__}: {error}"), _LONGEST)
            sections += [f"<h2>{registered.title}</h2>", f'<p class="warn">It cannot be drawn: {escaped(why)}</p>']
            continue
        if not made:
            continue
        places = []
        for at, one in enumerate(made):
            place = f"{name}-{at}"
            figures[place] = json.loads(one.to_json())
            places.append(f'<div class="plot" id="{place}"></div>')
        several = ' class="slices"' if len(places) > 1 else ""
        sections.append(f'<h2>{registered.title}</h2><p class="told">{escaped(registered.told)}</p>')
        sections.append(f"<div{several}>{''.join(places)}</div>")
        if name == "spending":
            sections.append(_spending(facts))
    return figures, sections


def _told(facts: Facts, figures: Mapping[str, Any]) -> dict[int, str]:
    """What the plots say of each trial that is in one, by its number."""
    traces = [trace for plot in figures.values() for trace in plot["data"] if trace.get("meta") == BY_NUMBER]
    numbers = {int(number) for trace in traces for number in trace["text"] if number != ""}
    return {number: told_of(facts.record.trials[number], facts.labels) for number in sorted(numbers)}


def _spending(facts: Facts) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("ending", "trials", "worker-hours", "share", "tokens"))
    rows = "".join(
        f"<tr><td>{escaped(one.ending)}</td><td>{one.trials or ''}</td><td>{words.hours(one.seconds)}</td>"
        f"<td>{words.whole_percent(share_of(facts.spending, one))}</td><td>{words.count(one.tokens)}</td></tr>"
        for one in facts.spending[:40]
    )
    return f'<div class="scroll"><table class="spent"><tr>{head}</tr>{rows}</table></div>'


def _reproduce(facts: Facts) -> list[str]:
    rows = "".join(
        f"<dt>{escaped(what)}</dt><dd><code>{escaped(command)}</code></dd>" for what, command in facts.reproduce.items()
    )
    out = ["<h2>To run it again</h2>", f"<dl>{rows}</dl>"]
    if facts.versions:
        told = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        out.append(f'<p class="told">It ran with {escaped(told)}.</p>')
    notes = [shorten(clean(note), _LONGEST) for note in facts.record.notes[:40]]
    if notes:
        out += ["<h2>Notes</h2>", f"<ul>{''.join(f'<li>{escaped(note)}</li>' for note in notes)}</ul>"]
    return out
