"""Ollama's Modelfile: a chat template becomes the same text by Go's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import pytest

from trainables.serving import modelfile

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAYS_WHO_IT_IS = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are {{ '{{' }} helpful.<|im_end|>\n{% endif %}"
    + CHATML
)
LLAMA3 = (
    "<|begin|>{% for m in messages %}<|start|>{{ m.role }}<|stop|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
GEMMA3 = (
    "<bos>{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
GEMMA2 = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
TEMPLATES = {"chatml": (CHATML, ""), "says who it is": (SAYS_WHO_IT_IS, ""), "llama 3": (LLAMA3, "<|begin|>"),
             "gemma 3": (GEMMA3, "<bos>"), "gemma 2": (GEMMA2, "<bos>")}  # fmt: skip


def renderer(template: str) -> modelfile.Render:
    compiled = jinja2.Environment().from_string(template)

    def refuse(told: str) -> None:
        raise jinja2.TemplateError(told)

    def render(messages: list[dict[str, str]], *, generate: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=generate, raise_exception=refuse)

    return render


def as_go(template: str, fields: Mapping[str, str]) -> str:
    """Executes the part of Go's `text/template` that is written here: fields, if, else, end, and quoted text. As Ollama
    does where it generates, it leaves out what follows .Response."""
    out, shown = "", [True]
    for text, action in re.findall(r"(.*?)(?:\{\{ (.*?) \}\}|$)", template, re.DOTALL):
        out += text if all(shown) else ""
        if action.startswith("if ."):
            shown.append(bool(fields[action[4:]]))
        elif action == "else":
            shown[-1] = not shown[-1]
        elif action == "end":
            shown.pop()
        elif action == ".Response":
            return out
        elif action:
            out += (action.strip('"') if action.startswith('"') else fields[action[1:]]) if all(shown) else ""
    return out


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_text_is_the_chat_templates(name: str, system: str) -> None:
    template, begin = TEMPLATES[name]
    render = renderer(template)
    made = modelfile.template_of(render, begin)
    assert made is not None
    messages = [{"role": "system", "content": system}] if system and name != "gemma 2" else []
    wanted = render([*messages, {"role": "user", "content": "Why?"}], generate=True).removeprefix(begin)
    assert as_go(made, {"System": system, "Prompt": "Why?"}) == wanted


def test_a_template_of_another_form_is_left_out() -> None:
    for odd in ("{{ raise_exception('never') }}", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
                'a """ {% for m in messages %}{{ m.content }}{% endfor %}'):  # fmt: skip
        assert modelfile.template_of(renderer(odd)) is None


def test_the_file() -> None:
    generation: dict[str, Any] = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1, "eos_token_id": 2}
    found = modelfile.parameters(generation, ["<end>", "<end>", 'a"b', ""])
    text = modelfile.modelfile("/base", ".", "{{ .Prompt }}", found)
    assert text == (
        'FROM /base\nADAPTER .\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER temperature 0.6\nPARAMETER top_p 0.9\n'
        'PARAMETER repeat_penalty 1.1\nPARAMETER stop "<end>"\n'
    )
    greedy = modelfile.parameters({**generation, "do_sample": False}, [])
    assert greedy == [("repeat_penalty", 1.1)]
    assert modelfile.modelfile("./model-f16.gguf", None, None, []) == "FROM ./model-f16.gguf\n"
