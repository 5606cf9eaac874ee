"""Tiny random bases that take images, with the processors and the image tokens of their families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import END, PAD, sentences
from tests.trainables.models.composites import TEXT

_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
_QWEN: dict[str, Any] = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64, "patch_size": 4,
}  # fmt: skip
_MROPE: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_SMALL = {"height": 16, "width": 16}

MARKS: dict[str, str] = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
    "idefics3": "<image>",
    "llava": "<image>",
}
"""By family: what its chat template writes for an image."""
_TOKENS: dict[str, tuple[str, ...]] = {
    "qwen2_5_vl": _QWEN_TOKENS,
    "qwen3_vl": _QWEN_TOKENS,
    "gemma3": ("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    "idefics3": ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"),
    "llava": ("<image>",),
}
_NAMED = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
"""Tokens that Gemma's processor asks its tokenizer for."""
_TEMPLATE = (
    "{%- macro written(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}MARK{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}<|{{ message.role }}|>{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{ written(message.content) }}<|end|>{%- endgeneration -%}{%- else -%}"
    "{{ written(message.content) }}<|end|>{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Saves a base of the family `name` with its tokenizer and processor, as a checkpoint of the hub has them."""
    import torch
    import transformers

    tokenizer = _tokenizer(name)
    config, made = _config(name, tokenizer)
    torch.manual_seed(seed)
    model = getattr(transformers, made)._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
            if parameter.ndim >= 2 and not parameter.any():  # Gemma's projector begins with zeros
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor, own = _processor(name)
    processor.save_pretrained(folder)
    kind = made.removesuffix("ForConditionalGeneration") + "Processor"
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind, **own}))
    return folder


def _tokenizer(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = [END, PAD, "<|user|>", "<|assistant|>", "<|system|>", *_TOKENS[name]]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    raw.train_from_iterator(sentences(400), trainer)
    more = {"extra_special_tokens": _NAMED} if name == "gemma3" else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD, **more)
    tokenizer.chat_template = _TEMPLATE.replace("MARK", MARKS[name])
    return tokenizer


def _config(name: str, tokenizer: Any) -> tuple[Any, str]:
    """The base's config, and the name of its class."""
    import transformers

    one = tokenizer.convert_tokens_to_ids
    text = {**TEXT, "vocab_size": len(tokenizer)}
    ends: dict[str, Any] = {"pad_token_id": 1, "eos_token_id": 0}
    if name in ("qwen2_5_vl", "qwen3_vl"):
        start, end, image, video = map(one, _QWEN_TOKENS)
        ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start,
               "vision_end_token_id": end}  # fmt: skip
        if name == "qwen2_5_vl":
            vision = {**_QWEN, "fullatt_block_indexes": [1], "window_size": 16}
            config = transformers.Qwen2_5_VLConfig(text_config={**text, **_MROPE}, vision_config=vision, **ids, **ends)
            return config, "Qwen2_5_VLForConditionalGeneration"
        vision = {**_QWEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        text = {**text, **_MROPE, "head_dim": 16}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids, **ends)
        return config, "Qwen3VLForConditionalGeneration"
    if name == "gemma3":
        start, end, image = map(one, _TOKENS[name])
        ids = {"image_token_index": image, "boi_token_index": start, "eoi_token_index": end, "mm_tokens_per_image": 4}
        text |= {"head_dim": 16, "sliding_window": 256}
        config = transformers.Gemma3Config(text_config=text, vision_config=_VISION, **ids, **ends)
        return config, "Gemma3ForConditionalGeneration"
    if name == "idefics3":
        text |= {"model_type": "llama"}
        config = transformers.Idefics3Config(
            text_config=text, vision_config=_VISION, image_token_id=one("<image>"), scale_factor=2, **ends
        )
        return config, "Idefics3ForConditionalGeneration"
    text |= {"model_type": "llama"}
    vision = {**_VISION, "model_type": "clip_vision_model"}
    config = transformers.LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=one("<image>"), image_seq_length=16, **ends
    )
    return config, "LlavaForConditionalGeneration"


def _processor(name: str) -> tuple[Any, dict[str, Any]]:
    """The processor of images, and what the processor of all says beside its class."""
    import transformers

    if name in ("qwen2_5_vl", "qwen3_vl"):
        size = {"shortest_edge": 64, "longest_edge": 4096}
        return transformers.Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2, size=size), {}
    if name == "gemma3":
        return transformers.Gemma3ImageProcessorPil(size=_SMALL), {"image_seq_length": 4}
    if name == "idefics3":
        edge = {"longest_edge": 16}
        made = transformers.Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
        return made, {"image_seq_len": 4}
    made = transformers.CLIPImageProcessorPil(size=_SMALL, crop_size=_SMALL, default_to_square=True)
    return made, {"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}


def picture(size: tuple[int, int] = (24, 24), colour: tuple[int, int, int] = (200, 30, 30)) -> Any:
    """A picture with a square of a colour on grey. size: width and height."""
    from PIL import Image

    made = Image.new("RGB", size, (128, 128, 128))
    width, height = size
    made.paste(colour, (width // 4, height // 4, width - width // 4, height - height // 4))
    return made


COLOURS: dict[str, tuple[int, int, int]] = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def rows(folder: Path, number: int = 24) -> list[dict[str, Any]]:
    """Rows in messages, each with a picture below `folder` / "pictures"; the answer is its colour."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    made = []
    for index in range(number):
        name, colour = list(COLOURS.items())[index % 3]
        place = f"pictures/{index}.png"
        picture((16 + 8 * (index % 3), 24), colour).save(folder / place)
        question = f"the {'cat sat on a mat' if index % 2 else 'dog'} which colour"
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": name}]
        made.append({"messages": turns, "images": [place]})
    return made
