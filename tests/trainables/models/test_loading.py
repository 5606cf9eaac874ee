"""A base is loaded as the class that its checkpoint names, and so are trained, saved and merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.models import composites
from tests.trainables.packed.bench import Bench, assert_same, assignment, drive
from trainables.models import base, base_folder, checkpoint, inspecting
from trainables.settings import ModelSettings
from trainables.sft import SFT
from tuner.contract import Evaluation, Fault, InputError, Unpackable

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., dict[str, Any]]
NAMED = ("gemma3", "qwen3_5", "mistral3")
"""Bases whose trials are run by default; the others add their module names."""
EVERY = [*NAMED, *(pytest.param(name, marks=pytest.mark.slow) for name in composites.KINDS if name not in NAMED)]


@pytest.fixture(scope="module")
def benches(sft_settings: Make, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """By name: a bench on a saved base of KINDS."""
    made: dict[str, Bench] = {}

    def bench(name: str) -> Bench:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            place = composites.save(name, folder / "base", tiny_model)
            made[name] = Bench(sft_settings(model={"model_name_or_path": str(place)}), folder)
        return made[name]

    return bench


def place_of(bench: Bench) -> Path:
    return Path(bench.settings["model"]["model_name_or_path"])


def adapter_of(curve: list[Evaluation]) -> Path:
    return Path(next(e.adapter for e in reversed(curve) if e.adapter))


def plain_losses(bench: Bench, adapter: Path) -> list[float]:
    """The validation losses of an SFTTrainer at the same steps, on the base as TRL loads it.

    adapter: a finished trial's, whose `exclude_modules` the plain run has too.
    """
    import transformers
    from peft import LoraConfig
    from trl import SFTTrainer
    from trl.trainer.utils import create_model_from_path

    from trainables import runtime
    from trainables.hf.arguments import sft_config

    settings = runtime.validated(bench.settings)
    place = str(place_of(bench))
    inputs = runtime.open_inputs(settings, bench.preparation)
    said = json.loads((adapter / "adapter_config.json").read_text())
    args = sft_config(settings, 8, 7, str(bench.folder / "plain"), gpu=False, bf16=False)
    found: list[float] = []

    class Measure(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = state.global_step in (2, 4, 8)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            found.append(metrics["eval_loss"])

    trainer = SFTTrainer(
        model=create_model_from_path(place, dtype="float32", device_map=None),
        args=args,
        train_dataset=inputs.train,
        eval_dataset=inputs.validation,
        processing_class=inputs.tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=32, target_modules="all-linear",
            exclude_modules=said["exclude_modules"],
        ),
        callbacks=[Measure()],
    )  # fmt: skip
    trainer.train()
    return found


@pytest.mark.parametrize("name", EVERY)
def test_a_trial_equals_a_plain_trainer_and_its_names_are_the_checkpoint_s(
    benches: Callable[[str], Bench], name: str
) -> None:
    from safetensors.torch import load_file

    bench = benches(name)
    curve = bench.solo({}, seed=7)
    adapter = adapter_of(curve)
    assert [e.eval_loss for e in curve] == pytest.approx(plain_losses(bench, adapter), abs=1e-5)
    assert curve[-1].eval_loss != curve[0].eval_loss

    tensors = load_file(adapter / "adapter_model.safetensors")
    names = {tensor.removeprefix("base_model.model.") for tensor in tensors}
    assert all(tensor.startswith(("model.language_model.", "language_model.", "model.text_model.")) for tensor in names)
    assert all(tensor.abs().max() > 0 for key, tensor in tensors.items() if ".lora_B." in key)


@pytest.mark.parametrize("name", EVERY)
def test_a_merged_model_has_every_tensor_of_the_checkpoint(
    benches: Callable[[str], Bench], tmp_path: Path, name: str
) -> None:
    bench = benches(name)
    SFT.merge(bench.settings, adapter_of(bench.solo({}, seed=7)), tmp_path / "merged")

    def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
        return {key: t.shape for file in checkpoint.files(folder) for key, t in checkpoint.header(file).items()}

    assert shapes(tmp_path / "merged") == shapes(place_of(bench))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "merged", place_of(bench))]
    assert configs[0]["architectures"] == configs[1]["architectures"]


@pytest.mark.parametrize("name", EVERY)
def test_packed_trials_equal_their_solo_runs_or_are_refused(benches: Callable[[str], Bench], name: str) -> None:
    bench = benches(name)
    try:
        engine = bench.engine(2)
        for slot in range(2):
            engine.join(slot, assignment(bench.folder / f"packed-{slot}", {}, seed=7 + slot))
    except Unpackable as refusal:
        assert refusal.message
        return
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    for slot in range(2):
        assert_same(curves[slot], bench.solo({}, seed=7 + slot))


def test_what_a_set_up_says_of_the_parts(benches: Callable[[str], Bench], tmp_path: Path) -> None:
    bench = benches("gemma3")
    program = SFT(bench.settings, bench.preparation)
    setup = program.start(assignment(tmp_path, {}, seed=7))
    program.stop()
    assert setup.details["base_class"] == "Gemma3ForConditionalGeneration"
    assert setup.parts.startswith("language: attention ")
    assert ", mlp " in setup.parts and setup.parts.endswith("; vision: none; projector: none")


def test_modules_of_a_tower_alone_are_refused(benches: Callable[[str], Bench], tmp_path: Path) -> None:
    bench = benches("gemma3")
    program = SFT(bench.settings, bench.preparation)
    with pytest.raises(Fault, match="match layers of vision alone, which no row of text passes through"):
        program.start(assignment(tmp_path, {"target_modules": ["fc1"]}, seed=7))


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_vl"])
def test_the_inspection_knows_every_tensor(benches: Callable[[str], Bench], name: str) -> None:
    settings = ModelSettings(model_name_or_path=str(place_of(benches(name))))
    assert inspecting.inspect(settings, base_folder.check(settings)).notes == ()


@pytest.mark.parametrize("named", [None, "NoSuchModel", "LlamaForCausalLM"])
def test_a_class_that_transformers_lacks_is_the_automatic_one(
    tiny_model: Path, tmp_path: Path, named: str | None
) -> None:
    import shutil

    shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "architectures": named and [named]}))
    loaded = base.load(ModelSettings(model_name_or_path=str(tmp_path / "base")))
    assert type(loaded).__name__ == "LlamaForCausalLM"


def refusals(folder: Path) -> list[InputError]:
    """What the inspection and the load say of a folder that cannot be a base."""
    settings = ModelSettings(model_name_or_path=str(folder))
    found = []
    for look in (lambda: inspecting.inspect(settings, base_folder.check(settings)), lambda: base.load(settings)):
        with pytest.raises(InputError) as caught:
            look()
        found.append(caught.value)
    return found


def test_a_model_type_that_transformers_does_not_know(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    for error in refusals(tmp_path):
        assert "knows no model type 'no-such-type'" in error.what and "upgrade transformers" in error.remedy
        assert error.where.endswith("config.json") and error.expected


def test_a_base_for_sequence_classification(tmp_path: Path) -> None:
    """With tied embeddings its checkpoint has every weight of the language model."""
    import transformers

    config = transformers.LlamaConfig(**composites.TEXT, vocab_size=64, tie_word_embeddings=True, num_labels=2)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    for error in refusals(tmp_path):
        assert "is a LlamaForSequenceClassification" in error.what and error.expected == "a language model"
        assert error.remedy
    with pytest.raises(InputError, match="is a LlamaForSequenceClassification"):  # before anything is started
        SFT.notes({"model": {"model_name_or_path": str(tmp_path)}, "data": {"train": "rows.jsonl"}}, frozenset())


def test_a_model_that_is_no_decoder(tmp_path: Path) -> None:
    import transformers

    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(tmp_path)
    for error in refusals(tmp_path):
        assert "T5ForConditionalGeneration" in error.what and error.expected
