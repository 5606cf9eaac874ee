"""Loads a base with an adapter, or a merged model, by transformers and PEFT alone, and computes its logits.

Run as `python -m trainables.serving.plain REQUEST ANSWER`, both of JSON: a process without any of this project's own
loading, so that what comes out is what a stranger gets. The logits are written as safetensors.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def logits(model: Any, ids: list[list[int]]) -> list[Any]:
    """The logits of each text [tokens, vocabulary] in float32, on the CPU. ids: the token ids of each text."""
    import torch

    found = []
    with torch.no_grad():
        for text in ids:
            given = torch.tensor([text], device=model.get_input_embeddings().weight.device)
            found.append(model(input_ids=given, use_cache=False).logits[0].float().cpu())
    return found


def _load(asked: dict[str, Any]) -> Any:
    import torch
    import transformers

    kind = getattr(transformers, asked["class"], transformers.AutoModelForCausalLM)
    options: dict[str, Any] = {}
    if asked["nf4"] is not None:
        compute = getattr(torch, asked["nf4"]["compute"])
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=asked["nf4"]["double_quant"],
            bnb_4bit_compute_dtype=compute,
        )  # fmt: skip
    model = kind.from_pretrained(
        asked["folder"], dtype=getattr(torch, asked["dtype"]), device_map={"": asked["device"]}, use_safetensors=True,
        attn_implementation=asked["attention"], trust_remote_code=asked["own_code"], **options,
    )  # fmt: skip
    if asked["adapter"] is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, asked["adapter"])
    return model.eval()


def _main(request: str, answer: str) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import safetensors.torch
    import transformers

    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["written"], trust_remote_code=asked["own_code"])
    said: dict[str, Any] = {"ids": [tokenizer(text)["input_ids"] for text in asked["texts"]]}
    said["template"] = tokenizer.chat_template
    found = logits(_load(asked), asked["ids"])
    safetensors.torch.save_file({str(at): one.contiguous() for at, one in enumerate(found)}, asked["logits"])
    Path(answer).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
