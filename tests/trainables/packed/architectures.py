"""Tiny bases of real architectures with random weights, large enough for a leak to show."""

from __future__ import annotations

from typing import Any

SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 16}
_MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}

GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 512}),
    "ministral3": ("Ministral3", {"head_dim": 16}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "sliding_window": 512}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "gpt_neox": ("GPTNeoX", {}),
    "olmo": ("Olmo", {}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", {"sliding_window": 512}),
    "cohere": ("Cohere", {}),
    "cohere2": ("Cohere2", {"sliding_window": 512}),
    "starcoder2": ("Starcoder2", {"residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "granite": ("Granite", {}),
    "smollm3": ("SmolLM3", {}),
    "deepseek_v3 without experts": ("DeepseekV3", {**_MLA, "first_k_dense_replace": 2}),
    "minicpm3": ("MiniCPM3", {**_MLA}),
    "glm": ("Glm", {"head_dim": 16}),
    "glm4": ("Glm4", {"head_dim": 16}),
    "apertus": ("Apertus", {}),
    "arcee": ("Arcee", {}),
    "helium": ("Helium", {"head_dim": 16}),
    "nemotron": ("Nemotron", {}),
    "hunyuan": ("HunYuanDenseV1", {"head_dim": 16}),
    "ernie": ("Ernie4_5", {"head_dim": 16}),
    "bitnet": ("BitNet", {}),
    "nanochat": ("NanoChat", {}),
    "persimmon": ("Persimmon", {}),
    "jais2": ("Jais2", {}),
    "cwm": ("Cwm", {"head_dim": 16, "sliding_window": 512}),
    "diffllama": ("DiffLlama", {}),
    "gpt2 without dropout": ("GPT2", {"n_positions": 1024, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "qwen2_moe without auxiliary loss": (
        "Qwen2Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "router_aux_loss_coef": 0.0},
    ),
}

LEAKY: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "lfm2_moe": (
        "Lfm2Moe",
        {
            "layer_types": ["conv", "full_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "num_dense_layers": 1,
        },
    ),
    "recurrent_gemma": ("RecurrentGemma", {"lru_width": 64, "num_hidden_layers": 3, "head_dim": 16}),
    "granite hybrid": (
        "GraniteMoeHybrid",
        {
            **_MAMBA,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 0,
            "router_aux_loss_coef": 0.0,
            "shared_intermediate_size": 64,
        },
    ),
    "mamba": ("Mamba", {"state_size": 8}),
    "mamba2": ("Mamba2", {"state_size": 16, "num_heads": 4, "head_dim": 32, "n_groups": 1, "chunk_size": 16}),
    "falcon_mamba": ("FalconMamba", {"state_size": 8}),
    "jamba": (
        "Jamba",
        {
            "num_experts": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
            "router_aux_loss_coef": 0.0,
        },
    ),
    "bamba": ("Bamba", {**_MAMBA, "attn_layer_indices": [1]}),
    "zamba2": (
        "Zamba2",
        {
            "mamba_ngroups": 1,
            "mamba_d_state": 16,
            "n_mamba_heads": 4,
            "chunk_size": 16,
            "use_mem_rope": False,
            "layers_block_type": ["mamba", "hybrid"],
            "num_mem_blocks": 1,
            "adapter_rank": 8,
        },
    ),
    "falcon_h1": ("FalconH1", {**_MAMBA, "mamba_d_ssm": 128, "head_dim": 16}),
    "nemotron_h": (
        "NemotronH",
        {
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 1,
            "ssm_state_size": 16,
            "chunk_size": 16,
            "layers_block_type": ["mamba", "attention"],
            "head_dim": 16,
        },
    ),
    "qwen3_next": (
        "Qwen3Next",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 0,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "router_aux_loss_coef": 0.0,
            "mlp_only_layers": [0, 1],
        },
    ),
    "minimax": (
        "MiniMax",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "router_aux_loss_coef": 0.0,
            "block_size": 16,
            "head_dim": 16,
        },
    ),
    "deepseek_v32 without experts": (
        "DeepseekV32",
        {**_MLA, "first_k_dense_replace": 2, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 64},
    ),
    "mistral beyond its window": ("Mistral", {"sliding_window": 64}),
    "gemma3 beyond its window": ("Gemma3Text", {"head_dim": 16, "sliding_window": 64}),
    "opt": ("OPT", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "gpt2": ("GPT2", {"n_positions": 1024}),
}

OTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon": ("Falcon", {"new_decoder_architecture": False}),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "head_dim": 16,
            "router_aux_loss_coef": 0.0,
        },
    ),
    "gemma2": ("Gemma2", {"head_dim": 16}),
    "afmoe": ("Afmoe", {"head_dim": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_dense_layers": 1}),
    "llama4": ("Llama4Text", {"head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 128}),
    "gpt_oss": ("GptOss", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
"""Bases with modules that other bases do not have."""


def build(kind: str, change: dict[str, Any], **more: Any) -> Any:
    """Makes the base as `models.base.load` does: frozen, in evaluation mode."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **change, **more})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
    return model.requires_grad_(False).eval()
