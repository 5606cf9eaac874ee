"""`tuner model`: golden text for four kinds of base, and what it is given by mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import golden
from trainables.sft import SFT
from tuner.cli import run
from tuner.contract import BaseLook, InputError
from tuner.report.base import base_report
from tuner.report.lines import plain

DEMO = Path(__file__).resolve().parents[3] / "tuner" / "demo" / "base"
TEXT: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
          "deepstack_visual_indexes": [0]}  # fmt: skip
HYBRID = {"layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
          "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
          "linear_value_head_dim": 8}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", TEXT),
    "experts": ("qwen3_moe", {**TEXT, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    "hybrid": ("qwen3_5_text", {**TEXT, **HYBRID}),
    "images": ("qwen3_vl", {"text_config": TEXT, "vision_config": VISION}),
}
TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saves a random base of a shape with the embedded tokenizer and a template that takes tools."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("bases")

    def made(shape: str) -> Path:
        place = folder / shape
        if not place.exists():
            kind, values = SHAPES[shape]
            config = transformers.AutoConfig.for_model(kind, **values)
            torch.manual_seed(0)
            auto = transformers.AutoModelForImageTextToText if shape == "images" else transformers.AutoModelForCausalLM
            auto.from_config(config).save_pretrained(place)
            for file in DEMO.glob("*token*"):
                shutil.copyfile(file, place / file.name)
            (place / "chat_template.jinja").write_text(TEMPLATE)
        return place

    return made


def looked(place: Path, **data: Any) -> BaseLook:
    given = {"model": {"model_name_or_path": str(place)}, "data": {"train": "rows.jsonl", **data}}
    return SFT.look_at_base(given)


def test_four_kinds_of_base(make: Callable[[str], Path]) -> None:
    parts = {}
    for shape in SHAPES:
        place = make(shape)
        parts[shape] = plain(base_report(looked(place), 100)).replace(f"{place.parent}/", "")
    golden.check("cli_model.txt", parts)


def test_figures_are_those_of_a_trial(make: Callable[[str], Path]) -> None:
    """The trainable parameters are what PEFT makes on the base with its weights."""
    import peft
    import transformers

    from trainables.models.lora import lora_config
    from trainables.settings import Settings

    data = looked(make("llama")).data
    base = transformers.AutoModelForCausalLM.from_pretrained(make("llama"))
    assert data["total"] == base.num_parameters() == sum(data["parts"].values())
    for target, adapted in data["targets"].items():
        given = {"model": {"model_name_or_path": "x"}, "data": {"train": "y"},
                 "train": {"target_modules": target, "lora_r": 16}}  # fmt: skip
        base = transformers.AutoModelForCausalLM.from_pretrained(make("llama"))
        model = peft.get_peft_model(base, lora_config(Settings.model_validate(given), base))
        assert model.get_nb_trainable_parameters()[0] == 16 * adapted["per_rank"]
    assert data["targets"]["all-linear"]["modules"] == 28 and data["targets"]["attention"]["modules"] == 16


def test_a_template_that_raises(make: Callable[[str], Path], tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                        "{% for m in messages %}{{ m.content }}{% endfor %}")  # fmt: skip
    found = looked(make("llama"), chat_template=str(template))
    assert "refuses a system turn (no system), leaves tool calls out without a word" in found.facts["chat"]
    template.write_text("{{ raise_exception('never') }}")
    with pytest.raises(InputError, match="raises on a user's and an assistant's turn: never") as caught:
        looked(make("llama"), chat_template=str(template))
    assert caught.value.where == str(template) and "data.chat_template" in caught.value.remedy


def test_a_processor_without_a_template(make: Callable[[str], Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(make("llama"), tmp_path / "base"))
    (place / "chat_template.jinja").unlink()
    assert "no chat template" in looked(place).facts["chat"]
    (place / "processor_config.json").write_text("{}")
    with pytest.raises(InputError, match="has a processor, and neither it nor the tokenizer has a chat template"):
        looked(place)


def test_what_is_no_base(make: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = Path(shutil.copytree(make("llama"), tmp_path / "base"))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    with pytest.raises(InputError, match="knows no model type 'unheard_of'"):
        looked(place)
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert run(["model", str(place)]) == 2
    err = capfd.readouterr().err
    assert "this is an adapter, not a base model" in err and "'org/base'" in err and "Traceback" not in err


def test_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["model", str(DEMO), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["kind"] == "LlamaForCausalLM" and said["packs"] is None and said["positions"] == 512
    assert set(said["memory"]) == {"bfloat16", "float32", "nf4"}
