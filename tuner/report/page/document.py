"""What every page of HTML has: one file, light and dark, no request to anywhere.

The policy in the head forbids every request. A page without a script may run none; a page with scripts names the hash
of each, so that a script in a text that others wrote would not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from tuner.report.data import visible

COLOURS = """\
:root { --text: #1f2328; --soft: #59636e; --ground: #ffffff; --card: #f6f8fa; --rule: #d1d9e0; --learned: #d2f4d9;
  --learned-text: #0a3d1c; --bar: #2f81c9; --good: #1a7f37; --warn: #9a5b00; --bad: #c0262d; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4af; --ground: #0d1117; --card: #161b22;
  --rule: #30363d; --learned: #12452a; --learned-text: #c5f5d3; --bar: #4493d8; --good: #56d364; --warn: #e0a44a;
  --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h2 small, .soft { color: var(--soft); font-weight: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); }
th, td { padding: .1rem .6rem; text-align: right; font-weight: normal; }
th { color: var(--soft); }
ul { margin: .5rem 0; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; }
"""
"""The colours of both schemes, and what headings, lists and tables look like."""

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def document(title: str, body: Sequence[str], style: str, scripts: Sequence[str] = ()) -> str:
    """The page. title: plain text. body: pieces of HTML. style: CSS beside COLOURS. scripts: the text of every script
    that may run, wherever it stands."""
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    policy = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
    policy += ["script-src " + " ".join(f"'sha256-{one}'" for one in hashes)] if hashes else []
    told = {"title": escaped(title), "body": "\n".join(body), "style": COLOURS + style, "policy": "; ".join(policy)}
    return _PAGE.substitute(told)


def escaped(text: str) -> str:
    """A text that others wrote, in one row: nothing in it is markup, and nothing steers."""
    return escape(visible(text).replace("\n", " "))


def definitions(facts: Mapping[str, str]) -> str:
    """Facts by name."""
    return f"<dl>{''.join(f'<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>' for name, value in facts.items())}</dl>"


def data_script(name: str, value: Any) -> str:
    """A value for a script of the page to read by its id: no text in it can end the element or open a comment."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        told = told.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{name}">{told}</script>'
