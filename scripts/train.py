"""Fine-tunes a LoRA adapter, or a QLoRA one where there is CUDA: the whole pattern of one run, to be read.

python scripts/train.py --model Qwen/Qwen3-0.6B --train train.jsonl --validation validation.jsonl

Rows are TRL's: prompt and completion, messages, or text. Without options: the base and rows of tuner's own demo.
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

DEMO = Path(__file__).resolve().parents[1] / "tuner" / "demo"


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("model", "base"), ("train", "train.jsonl"), ("validation", "validation.jsonl")):
        parser.add_argument(f"--{name}", default=str(DEMO / default))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=3e-4)  # ten times that of full fine-tuning
    parser.add_argument("--to", default="adapter")
    given = parser.parse_args(arguments)

    gpu = torch.cuda.is_available()
    nf4 = BitsAndBytesConfig(True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                             bnb_4bit_compute_dtype=torch.bfloat16) if gpu else None  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        given.model, dtype=torch.bfloat16 if gpu else torch.float32, quantization_config=nf4,
        device_map={"": 0} if gpu else "cpu", attn_implementation="sdpa")  # fmt: skip
    rows = load_dataset("json", data_files={"train": given.train, "validation": given.validation})
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    config = SFTConfig(
        output_dir=given.to, max_steps=given.steps, learning_rate=given.learning_rate, warmup_steps=given.steps // 20,
        per_device_train_batch_size=8, gradient_accumulation_steps=1, per_device_eval_batch_size=16, max_length=512,
        bf16=gpu, use_cpu=not gpu, gradient_checkpointing=gpu, logging_nan_inf_filter=False,  # a NaN is to be seen
        save_strategy="no", report_to="none", disable_tqdm=True, seed=0)  # fmt: skip
    trainer = SFTTrainer(  # the base as it was loaded: with get_peft_model before, nothing may be left to train
        base, config, train_dataset=rows["train"], eval_dataset=rows["validation"],
        processing_class=AutoTokenizer.from_pretrained(given.model), peft_config=lora)  # fmt: skip
    trainable, total = trainer.model.get_nb_trainable_parameters()
    others = [name for name, p in trainer.model.named_parameters() if p.requires_grad and "lora_" not in name]
    if not trainable or others:
        raise SystemExit(f"{trainable} weights would be trained, {len(others)} tensors outside the adapter: {others}")
    print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model()  # the adapter alone, with the tokenizer
    print(f"validation loss: {before:.3f} before, {after:.3f} after {given.steps} steps; adapter: {given.to}")
    return {"trainable": trainable / total, "before": before, "after": after}


if __name__ == "__main__":
    main()
