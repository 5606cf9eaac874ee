"""Greedy answers: what batches with a KV cache give is what one prompt alone gives, computed anew for every token."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tuner.contract import InputError

STOP, PAD, WORDS = 0, 1, 120


@pytest.fixture(scope="module", params=["rotary", "table of positions", "sliding window"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random base with a random adapter on it, in float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
    )

    torch.manual_seed(3)
    sizes = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4}  # fmt: skip
    ids = {"bos_token_id": None, "eos_token_id": STOP, "pad_token_id": PAD}
    if request.param == "rotary":
        base: Any = LlamaForCausalLM(LlamaConfig(**sizes, **ids))
    elif request.param == "sliding window":
        base = MistralForCausalLM(MistralConfig(**sizes, **ids, sliding_window=6))
    else:
        base = GPT2LMHeadModel(
            GPT2Config(vocab_size=WORDS, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.4, **ids)
        )
    # what a base's own config may ask for, and greedy answers must not follow
    base.generation_config.update(do_sample=True, temperature=2.0, repetition_penalty=1.9, no_repeat_ngram_size=1)
    targets = ["c_attn"] if request.param == "table of positions" else ["q_proj", "v_proj"]
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    return adapted.eval()


def prompts(number: int = 9) -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(2, WORDS) for _ in range(draw.randint(1, 17))] for _ in range(number)]


def alone(model: Any, prompt: list[int], most: int) -> list[int]:
    """The greedy answer without cache, padding or batch."""
    import torch

    ids = list(prompt)
    while len(ids) < len(prompt) + most:
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == STOP:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_a_batch_gives_what_a_prompt_alone_gives(model: Any) -> None:
    from trainables.answers.generating import generate

    given, most = prompts(), 20
    wanted = [alone(model, prompt, most) for prompt in given]
    before = model.get_base_model().generation_config.to_dict()
    for rows in (len(given), 4, 1):
        found = generate(model, given, stops=[STOP], padding=PAD, most=most, rows=rows)
        assert found.ids == wanted
    assert found.cut == sum(len(ids) == most for ids in wanted)
    assert found.tokens == sum(min(len(ids) + 1, most) for ids in wanted)
    assert model.get_base_model().generation_config.to_dict() == before, "the base keeps its own config"
    assert len({tuple(ids) for ids in wanted}) > 1, "the answers depend on the prompts"


def test_an_adapter_changes_the_answers(model: Any) -> None:
    from trainables.answers.generating import generate

    with_adapter = generate(model, prompts(), stops=[STOP], padding=PAD, most=8).ids
    with model.disable_adapter():
        assert generate(model, prompts(), stops=[STOP], padding=PAD, most=8).ids != with_adapter


def test_an_answer_ends_at_any_of_the_stops(model: Any) -> None:
    from trainables.answers.generating import generate

    free = generate(model, prompts(), stops=[], padding=PAD, most=8)
    assert {len(ids) for ids in free.ids} == {8} and free.cut == len(free.ids)
    stops = sorted({ids[3] for ids in free.ids})
    ended = generate(model, prompts(), stops=stops, padding=PAD, most=8)
    for whole, ids in zip(free.ids, ended.ids, strict=True):
        end = next(at for at, token in enumerate(whole) if token in stops)
        assert ids == whole[:end] and end <= 3


def test_fewer_rows_go_together_where_memory_runs_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainables.answers import generating

    plain, sizes = generating._answer, []

    def short_of_memory(model: Any, prompts: Any, *more: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, prompts, *more)

    wanted = generating.generate(model, prompts(), stops=[STOP], padding=PAD, most=6).ids
    monkeypatch.setattr(generating, "_answer", short_of_memory)
    assert generating.generate(model, prompts(), stops=[STOP], padding=PAD, most=6).ids == wanted
    assert sizes[:3] == [9, 4, 2]


def test_a_table_of_positions_has_an_end(model: Any) -> None:
    from trainables.answers.generating import generate

    if "GPT2" not in type(model.get_base_model()).__name__:  # positions are computed, and have none
        assert generate(model, [[5] * 40], stops=[], padding=PAD, most=25).tokens == 25
        return
    with pytest.raises(InputError) as caught:
        generate(model, [[5] * 40], stops=[STOP], padding=PAD, most=25)
    assert "has 64 positions" in caught.value.what and caught.value.remedy == "--max-new-tokens 24"


def test_prompts_of_a_chat_end_where_the_answer_begins(tokenizer_folder: Path) -> None:
    from trainables.answers import prompts as made
    from trainables.data.formats import Format
    from trainables.data.tokenizers import load
    from trainables.settings import ModelSettings

    tokenizer, _ = load(ModelSettings(model_name_or_path=str(tokenizer_folder)))
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"},
             {"role": "user", "content": "the dog"}, {"role": "assistant", "content": " ran "},
             {"role": "user", "content": "thanks"}]  # fmt: skip
    rows = [(3, {"messages": turns}), (4, {"messages": turns[:1]})]
    (found,) = made.prompts(rows, Format("messages", True), tokenizer, None, str)
    assert tokenizer.decode(found.ids).endswith("<|user|>the dog<|end|><|assistant|>")
    assert (found.row, found.reference) == (3, "ran") and found.text.endswith("user: the dog")
    rows = [(0, {"prompt": turns[:1], "completion": turns[1:]})]
    (first,) = made.prompts(rows, Format("prompt-completion", True), tokenizer, None, str)
    assert tokenizer.decode(first.ids) == "<|user|>the cat<|end|><|assistant|>" and first.reference == "sat"
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    base = type("Base", (), {"generation_config": type("C", (), {"eos_token_id": [7, 9]})})
    assert made.stops(tokenizer, base, [{"messages": turns}], Format("messages", True)) == sorted({7, 9, end})
