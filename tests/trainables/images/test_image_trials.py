"""Trials on rows with images: equal to those of a plain SFTTrainer with TRL's own collator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.images.conftest import Bench, curve_of
from trainables.data import image_parts
from trainables.models import checkpoint
from trainables.sft import SFT
from tuner.contract import Evaluation, Fault, InputError, Resume, Unpackable

pytestmark = pytest.mark.usefixtures("one_thread")

Benches = Callable[[str], Bench]
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3", "llava")


def _family(name: str) -> Any:
    """The first in every run; what repeats its proof, slowly."""
    return pytest.param(name, marks=[pytest.mark.slow] if name != FAMILIES[0] else [])


def adapter_of(curve: list[Evaluation]) -> Path:
    return Path(next(e.adapter for e in reversed(curve) if e.adapter))


def tensors_of(curve: list[Evaluation]) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(adapter_of(curve) / "adapter_model.safetensors")


def plain_losses(bench: Bench, curve: list[Evaluation], rows: Callable[[str], Any], **model: Any) -> list[float]:
    """The validation losses of an SFTTrainer that reads the pictures itself, and makes its own collator.

    curve: of the trial, whose adapter has the same layers. rows: the rows of a set, with pictures.
    """
    import transformers
    from peft import LoraConfig
    from trl import SFTTrainer
    from trl.trainer.utils import create_model_from_path

    from trainables import runtime
    from trainables.hf.arguments import sft_config
    from trainables.images import processors

    settings = runtime.validated(bench.settings)
    said = json.loads((adapter_of(curve) / "adapter_config.json").read_text())
    args = sft_config(settings, 8, 7, str(bench.folder / "plain"), gpu=False, bf16=False)
    args.max_length, args.dataset_kwargs = 64, None
    found: list[float] = []

    class Measure(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = state.global_step in (2, 4, 8)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            found.append(metrics["eval_loss"])

    base = create_model_from_path(settings.model.model_name_or_path, dtype="float32", device_map=None, **model)
    for module in base.modules():  # weights that bitsandbytes repacks (AVX512-BF16) have no backward
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    trainer = SFTTrainer(
        model=base,
        args=args,
        train_dataset=rows("train"),
        eval_dataset=rows("validation"),
        processing_class=processors.load(settings.model, settings.data)[0],
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=32, target_modules="all-linear",
            exclude_modules=said["exclude_modules"],
        ),
        callbacks=[Measure()],
    )  # fmt: skip
    trainer.train()
    return found


def pictured(bench: Bench) -> Callable[[str], Any]:
    """The rows of a set with their pictures, as TRL's users have them."""

    def rows(name: str) -> Any:
        return as_dataset(bench, bench.rows(name))

    return rows


def as_dataset(bench: Bench, rows: list[dict[str, Any]]) -> Any:
    import datasets

    made = [
        {**image_parts.in_parts(row), "images": [str(bench.folder / place) for place in row["images"]]} for row in rows
    ]
    return datasets.Dataset.from_list(made).cast_column("images", datasets.List(datasets.Image()))


@pytest.mark.parametrize("name", [_family(name) for name in FAMILIES])
def test_a_trial_equals_a_plain_trainer(benches: Benches, name: str) -> None:
    bench = benches(name)
    program = bench.program()
    curve = curve_of(program, bench.assignment("frozen"))
    tensors = tensors_of(curve)
    assert not [tensor for tensor in tensors if "vis" in tensor or "projector" in tensor or "connector" in tensor]
    assert [e.eval_loss for e in curve] == pytest.approx(plain_losses(bench, curve, pictured(bench)), abs=1e-5)
    assert curve[-1].eval_loss < curve[0].eval_loss  # type: ignore[operator]

    adapted = curve_of(program, bench.assignment("adapted", {"vision": "adapted"}))
    assert [e.eval_loss for e in adapted] == pytest.approx(plain_losses(bench, adapted, pictured(bench)), abs=1e-5)
    more = {tensor: value for tensor, value in tensors_of(adapted).items() if tensor not in tensors}
    assert more and any(value.abs().max() > 0 for tensor, value in more.items() if ".lora_B." in tensor)
    again = curve_of(program, bench.assignment("again"))
    assert [e.eval_loss for e in again] == [e.eval_loss for e in curve], "the base is as it was"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_a_trial_on_prompt_and_completion(benches: Benches, name: str) -> None:
    bench = benches(name)
    rows = {}
    for part in ("train", "validation"):
        rows[part] = [
            {"prompt": row["messages"][:1], "completion": row["messages"][1:], "images": row["images"]}
            for row in bench.rows(part)
        ]
        (bench.folder / f"{part}2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[part]))
    data = {"train": str(bench.folder / "train2.jsonl"), "validation": str(bench.folder / "validation2.jsonl")}
    curve = curve_of(bench.program(data=data), bench.assignment("completion"))

    def read(part: str) -> Any:
        return as_dataset(bench, rows[part])

    assert [e.eval_loss for e in curve] == pytest.approx(plain_losses(bench, curve, read), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava"])
def test_a_trial_in_nf4(benches: Benches, name: str) -> None:
    import torch
    import transformers

    bench = benches(name)
    curve = curve_of(
        bench.program(model={"quantization": {"kind": "nf4", "compute_dtype": "float32"}}),
        bench.assignment("nf4", {"vision": "adapted"}),
    )
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    plain = plain_losses(bench, curve, pictured(bench), quantization_config=how)
    assert [e.eval_loss for e in curve] == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
def test_a_trial_goes_on_after_it_was_cut_off(benches: Benches, every_evaluation: None) -> None:
    bench = benches("qwen2_5_vl")
    program = bench.program()
    params = {"vision": "adapted", "lora_dropout": 0.1}
    whole = curve_of(program, bench.assignment("whole", params))
    task = bench.assignment("cut", params)
    program.start(task)
    known = [program.step(), program.step()]
    program.stop()
    later = bench.folder / "attempt-2"
    later.mkdir()
    best = min(e.eval_loss for e in known if e.eval_loss is not None)
    resume = Resume(known[-1].step, best, (task.folder,))
    rest = curve_of(bench.program(), replace(task, folder=str(later), attempt=2, resume=resume))
    assert [e.step for e in rest] == [8]
    assert rest[-1].eval_loss == pytest.approx(whole[-1].eval_loss, abs=1e-5)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def test_a_merged_model_has_every_tensor_and_its_processor(benches: Benches, tmp_path: Path, name: str) -> None:
    from transformers import AutoConfig

    from trainables import runtime
    from trainables.images import processors

    bench = benches(name)
    curve = curve_of(bench.program(), bench.assignment("merged", {"vision": "adapted"}))
    SFT.merge(bench.settings, adapter_of(curve), tmp_path / "merged")

    def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
        return {key: t.shape for file in checkpoint.files(folder) for key, t in checkpoint.header(file).items()}

    assert shapes(tmp_path / "merged") == shapes(bench.folder / "base")
    settings = runtime.validated(bench.settings)
    model = settings.model.model_copy(update={"model_name_or_path": str(tmp_path / "merged")})
    assert type(AutoConfig.from_pretrained(tmp_path / "merged")).__name__
    merged, own = (processors.load(one, settings.data)[0] for one in (model, settings.model))
    assert merged.image_processor.to_dict() == own.image_processor.to_dict()


@pytest.mark.slow
def test_rows_of_text_among_them_are_no_frozen_tower(benches: Benches) -> None:
    """Where most rows have no image, the first steps do not reach the tower: no fault ends the trial."""
    from tests.conftest import write_jsonl

    bench = benches("qwen2_5_vl")
    words = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    rows = [{"messages": words, "images": []} for _ in range(23)] + bench.rows("train")[:1]
    data = {"train": str(write_jsonl(bench.folder / "mixed.jsonl", rows)), "on_duplicate": "keep"}
    train = {"effective_batch_size": 1, "per_device_train_batch_size": 1, "max_steps": 24, "learning_rate": 1e-3}
    curve = curve_of(bench.program(data=data, train=train), bench.assignment("mixed", {"vision": "adapted"}))
    assert curve[-1].done


def test_no_engine_takes_rows_with_images(benches: Benches) -> None:
    settings, preparation = benches("qwen2_5_vl").prepared()
    with pytest.raises(Unpackable, match="rows have images: each has pixels of another shape"):
        SFT.pack(settings, preparation, 2)


def test_several_processes_are_refused(benches: Benches) -> None:
    from tuner.contract import Group

    settings, preparation = benches("qwen2_5_vl").prepared()
    with pytest.raises(Fault, match="a trial with them is trained by one process"):
        SFT(settings, preparation, Group(size=2))


def test_an_adapter_on_the_tower_needs_images(tiny_data: Path, benches: Benches) -> None:
    bench = benches("qwen2_5_vl")
    text = {"train": str(tiny_data / "messages.jsonl"), "validation": None}
    with pytest.raises(InputError, match=r"model\.vision adapted, and no row has an image"):
        bench.prepared(data=text, model={"vision": "adapted"})
    settings, preparation = bench.prepared(data=text)
    with pytest.raises(InputError, match="take vision out of the space"):
        SFT.check_values(settings, {"vision": ["frozen", "adapted"]}, preparation)
    assert any("vision, which no text passes through" in note for note in SFT.check_values(settings, {}, preparation))
    settings, preparation = bench.prepared()
    assert SFT.check_values(settings, {"vision": ["frozen", "adapted"]}, preparation) == ()
