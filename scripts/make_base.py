"""Makes a base model of a real shape with random weights, for benchmarks on machines without real weights.

    python scripts/make_base.py 1.5b /tmp/base-1.5b

The shapes are Qwen2's. The tokenizer is the embedded demo's: its ids are valid in the larger vocabulary.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "tuner" / "demo"

SHAPES = {
    # name: hidden, intermediate, layers, heads, key-value heads, tied embeddings, vocabulary
    "tiny": (128, 384, 2, 4, 2, True, 2048),
    "0.5b": (896, 4864, 24, 14, 2, True, 151936),
    "1.5b": (1536, 8960, 28, 12, 2, True, 151936),
    "7b": (3584, 18944, 28, 28, 4, False, 152064),
}


def make_base(shape: str, to: Path, seed: int = 0) -> int:
    """Writes the model folder (bf16 safetensors, config, tokenizer); gives its number of parameters."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    hidden, intermediate, layers, heads, kv_heads, tied, vocabulary = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(str(DEMO / "base"))
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(str(to))
    tokenizer.save_pretrained(str(to))
    parameters = sum(p.numel() for p in model.parameters())
    del model
    gc.collect()
    torch.cuda.empty_cache()  # else the 15 GB of a 7B base stay with the benchmark that calls this
    return parameters


def make_rows(to: Path, rows: int, tokens: int, seed: int = 0) -> None:
    """Writes prompt-completion rows of about `tokens` tokens, joined from the demo's, as train.jsonl and
    validation.jsonl (64 rows)."""
    import random

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(DEMO / "base"))
    source = [json.loads(line) for line in (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(source)
    lengths = [len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) for row in source]
    place = 0
    for name, count in (("train", rows), ("validation", 64)):
        with (to / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                prompt, have = [], 0
                while have < tokens:
                    row, length = source[place % len(source)], lengths[place % len(source)]
                    place += 1
                    prompt.append(row["prompt"] + row["completion"])
                    have += length
                text = "\n".join(prompt)
                cut = len(text) // 3
                file.write(json.dumps({"prompt": text[:cut], "completion": text[cut:]}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("to", type=Path)
    arguments = parser.parse_args()
    start = time.time()
    parameters = make_base(arguments.shape, arguments.to)
    print(f"{arguments.to}: {parameters:,} parameters in {time.time() - start:.1f} s")
