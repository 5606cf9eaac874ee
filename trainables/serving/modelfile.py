"""Writes Ollama's Modelfile: FROM, ADAPTER, TEMPLATE and PARAMETER. Torch-free.

A chat template is Jinja, and Ollama's is Go's `text/template`. It is not translated but rendered: with markers in place
of the messages, and what stands around the markers is what Ollama writes around its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SYSTEM, USER, ANSWER = "@@system@@", "@@prompt@@", "@@response@@"
"""Markers that stand for the messages while a template is rendered."""
_GO = {SYSTEM: "{{ .System }}", USER: "{{ .Prompt }}", ANSWER: "{{ .Response }}"}
_PARAMETERS = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip
"""Keys of a generation config, and Ollama's parameters for them."""

Render = Callable[..., str]
"""Renders messages by the tokenizer's chat template: `render(messages, generate=bool)`. Raises what the template
raises."""


def modelfile(source: str, adapter: str | None, template: str | None, parameters: Iterable[tuple[str, Any]]) -> str:
    """The text of a Modelfile. source: what FROM names. adapter: the folder of an adapter; None for a merged model.
    template: of Ollama's; None: Ollama takes the base's."""
    lines = [f"FROM {source}", *([f"ADAPTER {adapter}"] if adapter else [])]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f"PARAMETER {name} {_value(value)}" for name, value in parameters]
    return "\n".join(lines) + "\n"


def parameters(generation: Mapping[str, Any], stops: Iterable[str]) -> list[tuple[str, Any]]:
    """Ollama's parameters for a generation config, and its stop texts. A config that does not sample has no
    temperature."""
    samples = generation.get("do_sample", True) is not False
    found = [
        (ours, generation[name])
        for name, ours in _PARAMETERS.items()
        if isinstance(generation.get(name), int | float) and (samples or ours == "repeat_penalty")
    ]
    return [*found, *(("stop", text) for text in dict.fromkeys(stops) if text and '"' not in text and "\n" not in text)]


def template_of(render: Render, begin: str = "") -> str | None:
    """A chat template as a template of Ollama's; None where it has no such form.

    begin: the text of the token at the beginning of every text, which Ollama adds itself.
    """
    user, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}
    try:
        asked = render([user], generate=False)
        opened = render([user], generate=True)
        answered = render([user, answer], generate=False)
    except Exception:  # of the template: whatever it raises
        return None
    try:
        told = render([{"role": "system", "content": SYSTEM}, user], generate=False)
    except Exception:  # Gemma 2's template takes no system message
        told = ""
    if not opened.startswith(asked) or asked.count(USER) != 1 or answered.count(ANSWER) != 1:
        return None
    end = answered.partition(ANSWER)[2]
    asked, opened, told = (text.removeprefix(begin) for text in (asked, opened, told))
    if SYSTEM in told:
        before, with_system, without, after = _difference(told, asked)
        if USER in with_system or USER in without or with_system.count(SYSTEM) != 1:
            return None
        system = "{{ if .System }}" + _literal(with_system) + ("{{ else }}" + _literal(without) if without else "")
        head = _literal(before) + system + "{{ end }}" + _literal(after)
    else:
        head = _literal(asked)
    text = head + _literal(opened[len(asked) :]) + _GO[ANSWER] + _literal(end)
    return None if '"""' in text else text


def _difference(told: str, asked: str) -> tuple[str, str, str, str]:
    """What two texts begin with, what each has between, and what both end with."""
    shorter = min(len(told), len(asked))
    ending = next((n for n in range(shorter) if told[-1 - n] != asked[-1 - n]), shorter)
    rest = shorter - ending
    beginning = next((n for n in range(rest) if told[n] != asked[n]), rest)
    stop = -ending or None
    return told[:beginning], told[beginning:stop], asked[beginning:stop], told[len(told) - ending :]


def _literal(text: str) -> str:
    """A text within a Go template: markers become fields, and braces of its own are quoted."""
    text = text.replace("{{", '{{ "{{" }}')
    for marker, field in _GO.items():
        text = text.replace(marker, field)
    return text


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
