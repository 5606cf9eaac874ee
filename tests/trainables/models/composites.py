"""Tiny random bases that take images or sound beside text, with the module names of their families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 1, "bos_token_id": None,
    "eos_token_id": 0,
}  # fmt: skip
_VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_QWEN: dict[str, Any] = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64, "patch_size": 4,
}  # fmt: skip
_MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
_LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
}  # fmt: skip
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_IMAGES: dict[str, Any] = {
    "image_token_id": 3,
    "video_token_id": 4,
    "vision_start_token_id": 2,
    "vision_end_token_id": 2,
}
_SEEN: dict[str, Any] = {**_QWEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}

KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma3": ("Gemma3", {"head_dim": 16, "sliding_window": 256}, {
        "vision_config": {**_VISION, "image_size": 16, "patch_size": 4}, "mm_tokens_per_image": 4,
        "image_token_index": 3, "boi_token_index": 2, "eoi_token_index": 2}),
    "qwen2_5_vl": ("Qwen2_5_VL", {"rope_parameters": _MROPE}, {
        **_IMAGES, "vision_config": {**_QWEN, "fullatt_block_indexes": [1], "window_size": 16}}),
    "qwen3_vl": ("Qwen3VL", {"rope_parameters": _MROPE, "head_dim": 16}, {**_IMAGES, "vision_config": _SEEN}),
    "qwen3_vl_moe": ("Qwen3VLMoe", {"rope_parameters": _MROPE, "head_dim": 16, **_EXPERTS}, {
        **_IMAGES, "vision_config": _SEEN}),
    "qwen3_5": ("Qwen3_5", {"rope_parameters": _MROPE, "head_dim": 16, **_LINEAR}, {
        **_IMAGES, "vision_config": {**_QWEN, "num_position_embeddings": 16}}),
    "mistral3": ("Mistral3", {"model_type": "mistral", "head_dim": 16}, {
        "vision_config": {**_VISION, "model_type": "pixtral", "image_size": 16, "patch_size": 4},
        "image_token_index": 3, "tie_word_embeddings": False}),
    "smolvlm": ("SmolVLM", {"model_type": "llama"}, {
        "vision_config": {**_VISION, "image_size": 16, "patch_size": 4}, "image_token_id": 3}),
    "qwen2_audio": ("Qwen2Audio", {"model_type": "qwen2"}, {
        "audio_config": {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
                         "num_mel_bins": 16, "max_source_positions": 32}, "audio_token_index": 3}),
}  # fmt: skip
"""By name: the family's prefix in transformers, changes of its text config, and the rest of its config."""


def build(name: str, vocabulary: int = 512) -> Any:
    """Makes a base of the class that a checkpoint of its family names. vocabulary: number of token ids."""
    import torch
    import transformers

    family, text, rest = KINDS[name]
    config = getattr(transformers, f"{family}Config")(
        text_config={**TEXT, **text, "vocab_size": vocabulary}, **rest, pad_token_id=1, eos_token_id=0
    )
    made = getattr(transformers, f"{family}ForConditionalGeneration")
    torch.manual_seed(0)
    model = made._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
    return model.requires_grad_(False).eval()


def save(name: str, folder: Path, tokenizer: Path) -> Path:
    """Saves a base with a tokenizer: `tokenizer` is the folder that it is taken from."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    build(name, len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
