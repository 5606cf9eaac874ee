"""What images take beside the tokens in their places: the estimate against what torch saves, and where it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.models import tower_memory
from trainables.models.tower_memory import shape_of
from trainables.sft import SFT

TEXT: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 224,
    "patch_size": 14,
}  # fmt: skip
QWEN: dict[str, Any] = {
    "depth": 4, "hidden_size": 128, "intermediate_size": 344, "num_heads": 4, "out_hidden_size": 64, "patch_size": 14,
}  # fmt: skip
MROPE: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
IDS: dict[str, Any] = {
    "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8,
}  # fmt: skip
SIDE, PATCHES, IMAGE = 224, 256, 5


def _made(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """Config, class, and the inputs of an image of 224 by 224 pixels."""
    import torch
    import transformers

    ends: dict[str, Any] = {"pad_token_id": 1, "eos_token_id": 0, "bos_token_id": 0}
    if name in ("Qwen2_5_VL", "Qwen3VL"):
        own = {"fullatt_block_indexes": [1], "window_size": 112}
        text = {**TEXT, **MROPE, **ends}
        if name == "Qwen3VL":
            own, text = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}, {**text, "head_dim": 16}
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config={**QWEN, **own}, **IDS, **ends)
        inputs = {"pixel_values": torch.randn(PATCHES, 1176), "image_grid_thw": torch.tensor([[1, 16, 16]])}
    elif name == "Gemma3":
        config = transformers.Gemma3Config(
            text_config={**TEXT, "head_dim": 16, "sliding_window": 256}, vision_config=TOWER, image_token_index=IMAGE,
            boi_token_index=7, eoi_token_index=8, mm_tokens_per_image=16, **ends,
        )  # fmt: skip
        inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    else:
        config = transformers.LlavaConfig(
            text_config={**TEXT, "model_type": "llama"}, vision_config={**TOWER, "model_type": "clip_vision_model"},
            image_token_index=IMAGE, image_seq_length=PATCHES, **ends,
        )  # fmt: skip
        inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    return config, getattr(transformers, f"{name}ForConditionalGeneration"), inputs


def saved(name: str, *, adapted: bool) -> int:
    """Bytes that torch saves in the forward of a row with an image, weights aside."""
    import torch
    from peft import LoraConfig, get_peft_model

    config, made, inputs = _made(name)
    shape = shape_of(config.to_dict())
    assert shape is not None
    tower = None if adapted else r".*(visual|vision_tower|multi_modal_projector).*"
    lora = LoraConfig(r=4, target_modules="all-linear", exclude_modules=tower)
    model = get_peft_model(made._from_config(config, dtype=torch.float32), lora).train()
    ids = torch.tensor([[IMAGE] * (PATCHES // shape.merged) + [10] * 8])
    of_image = (ids == IMAGE).long()
    more = {"Gemma3": {"token_type_ids": of_image}, "Llava": {}}.get(name, {"mm_token_type_ids": of_image})
    held = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, **more, **inputs)
    return sum(found.values())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if place else []) for place, name in
             enumerate(("Qwen2_5_VL", "Qwen3VL", "Gemma3", "Llava"))],
)  # fmt: skip
def test_an_adapted_tower_saves_what_is_estimated(name: str) -> None:
    shape = shape_of(_made(name)[0].to_dict())
    assert shape is not None and shape.patches(SIDE * SIDE) == PATCHES
    measured = saved(name, adapted=True) - saved(name, adapted=False)
    assert PATCHES * shape.saved(4, bf16=False) == pytest.approx(measured, rel=0.2)


CONFIGS: dict[str, tuple[dict[str, Any], int | None]] = {
    "qwen2.5-vl-3b": ({
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2}}, 1337),
    "qwen2-vl-2b": ({
        "model_type": "qwen2_vl", "hidden_size": 1536, "vision_config": {
            "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 1536, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2}}, 1337),
    "gemma-3-4b": ({
        "model_type": "gemma3", "mm_tokens_per_image": 256, "text_config": {"hidden_size": 2560}, "vision_config": {
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "num_hidden_layers": 27,
            "patch_size": 14}}, 4096),
    "tiles": ({
        "model_type": "idefics3", "text_config": {"hidden_size": 2048}, "vision_config": {
            "hidden_size": 1152, "image_size": 364, "intermediate_size": 4304, "num_hidden_layers": 27,
            "patch_size": 14}}, None),
    "no tower": ({"model_type": "qwen2", "hidden_size": 2048}, None),
}  # fmt: skip
"""By name: a config, and the patches of an image of 512 by 512 pixels."""


@pytest.mark.parametrize("name", CONFIGS)
def test_patches_of_an_image(name: str) -> None:
    config, patches = CONFIGS[name]
    shape = shape_of(config)
    assert (shape and shape.patches(512 * 512)) == patches


def test_a_frozen_tower_has_freed_its_memory_before_the_decoder_s_peak() -> None:
    shape = shape_of(CONFIGS["qwen2.5-vl-3b"][0])
    assert shape is not None

    def need(*, adapted: bool, others: int) -> int:
        given: dict[str, Any] = {"images": 4, "max_pixels": 512 * 512, "rank": 16, "bf16": True, "nf4": True}
        return tower_memory.need(shape, adapted=adapted, others=others, **given)

    frozen, alone, adapted = (
        need(adapted=False, others=1 << 40),
        need(adapted=False, others=0),
        need(adapted=True, others=0),
    )
    assert frozen == 4 * 1337 * (4 * 3 * 2 * 14**2 + 2 * 2048 // 4)
    assert frozen < alone < adapted


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({
        **TEXT, "model_type": "qwen2_5_vl",
        "vision_config": {**QWEN, "spatial_merge_size": 2, "hidden_act": "silu"},
    }))  # fmt: skip
    return tmp_path


def _memory(base: Path, slots: int = 1, **sections: Any) -> Any:
    settings = {
        "model": {"model_name_or_path": str(base), "dtype": "float32", **sections.get("model", {})},
        "data": {"train": "a.jsonl", **sections.get("data", {})},
    }
    return SFT.memory(settings, sections.get("params", {}), slots)


def test_the_memory_of_a_trial_counts_images(base: Path) -> None:
    frozen, adapted = _memory(base), _memory(base, params={"vision": "adapted"})
    assert adapted["images"] > frozen["images"] > 0
    assert frozen["total"] == sum(size for name, size in frozen.items() if name != "total")
    smaller = _memory(base, data={"max_pixels": 65_536})
    assert smaller["images"] < frozen["images"]
    assert "images" not in _memory(base, data={"columns": {"images": None}}) and "images" not in _memory(base, slots=2)


def test_images_that_are_not_known_are_no_number(base: Path) -> None:
    config = {**json.loads((base / "config.json").read_text()), "model_type": "idefics3"}
    del config["vision_config"]["spatial_merge_size"]
    (base / "config.json").write_text(json.dumps(config))
    found = _memory(base)
    assert found["images"] is None and found["total"] > 0
    assert _memory(base, params={"vision": "adapted"}) == tower_memory.UNKNOWN
