"""Trains an adapter on one tiny model in several ways, and compares them; `bench_families.py` uses it.

All in float32 on one thread of a CPU, over the same rows, steps and seed:

trl      a plain SFTTrainer with `peft_config=`, whose adapter is on the layers that tuner chose. First it is asked
         whether it trains with PEFT's own "all-linear": no family may fail here that trains there
solo     the losses of a trial of tuner, which are to be those of trl
packed   the same trial beside another one on one base, whose losses are to be those of solo; or why it is refused
moves    every group of layers that has an adapter has tensors that have moved
names    plain PEFT loads every tensor of the adapter over the checkpoint's class
merge    the merged folder has every tensor of the checkpoint
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

STEPS, BATCH, RANK, LEARNING_RATE, SEED = 6, 4, 8, 3e-3, 7
POINTS = (1 / 3, 2 / 3, 1.0)
"""Shares of a trial at which it is evaluated."""
EQUAL = 1e-5
"""Largest difference between two losses that counts as none: float32 rounds a loss of 8 by 5e-7."""
_PREFIX = "base_model.model."
"""What PEFT puts before the names of the base's modules."""


@dataclass
class Row:
    """A family in the table."""

    family: str
    """Transformers' model type."""
    loaded_as: str = ""
    """The class that tuner loads."""
    attention: str = ""
    """The attention kernel."""
    trl: str = ""
    """Whether plain TRL trains with all-linear, else its error."""
    solo: str = ""
    """The largest difference of its losses to TRL's, or the error."""
    packed: str = ""
    """The largest difference to solo, or why it is refused."""
    rounding: str = ""
    """Where that is not none: the largest difference of the solo trial to itself in micro-batches of half the size."""
    moves: str = ""
    """Which parts have an adapter, and whether each group of layers moves."""
    names: str = ""
    """Whether plain PEFT finds every adapted layer."""
    merge: str = ""
    """How many tensors of the checkpoint the merged folder has."""
    notes: list[str] = field(default_factory=list)
    """What tuner says of the base before the first trial."""
    losses: list[float] = field(default_factory=list)
    """Of the trial of tuner."""
    versions: str = ""
    """The libraries that it was tried with."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Its columns."""
        packed = f"{self.packed} (rounding: {self.rounding})" if self.rounding else self.packed
        return (self.family, self.loaded_as, self.attention, self.trl, self.solo, packed, self.moves, self.names,
                self.merge)  # fmt: skip

    @property
    def fails(self) -> list[str]:
        """What is not as it should be."""
        good = self.trl != "trains" or self.solo.startswith("refused") or _number(self.solo) is not None
        bad = [] if good else [f"solo {self.solo}"]
        bad += [f"solo differs by {self.solo}"] if (_number(self.solo) or 0) > EQUAL else []
        allowed = max(EQUAL, _number(self.rounding) or 0)
        bad += [f"packed differs by {self.packed}"] if (_number(self.packed) or 0) > allowed else []
        for name in ("packed", "moves", "names", "merge"):
            bad += [f"{name}: {getattr(self, name)}"] if getattr(self, name).startswith("fails") else []
        return bad


def tried(family: str, folder: Path) -> Row:
    """A family's row. folder: has its model in `base`; everything else is written beside that."""
    import torch

    torch.set_num_threads(1)
    row = Row(family)
    _fill(row, folder)
    gc.collect()
    return row


def _fill(row: Row, folder: Path) -> None:
    """Fills a row in, as far as its trials go."""
    from trainables.sft import SFT
    from tuner.contract import InputError

    settings = _settings(folder / "base", _rows(folder))
    try:
        preparation = SFT.prepare(settings, folder / "cache")
        row.notes = [*preparation.notes, *SFT.check_values(settings, {}, preparation)]
        program = SFT(settings, preparation)
        base = program.resident.model  # type: ignore[union-attr]
        row.loaded_as, row.attention = type(base).__name__, base.config.get_text_config()._attn_implementation
        row.losses, adapter, config, parts = _solo(program, folder / "solo")
        row.moves = _moves(adapter, parts)
    except Exception as error:
        row.solo = f"refused: {_what(error)}" if isinstance(error, InputError) else _failed(error)
        row.trl = _textbook_trains(folder, "all-linear")
        return
    del program, base
    row.trl = _textbook_trains(folder, "all-linear")
    textbook = _attempt(lambda: _textbook(folder, config))
    row.solo = textbook if isinstance(textbook, str) else _apart(row.losses, textbook)
    row.packed = _packed(settings, preparation, row.losses, folder / "packed")
    if (_number(row.packed) or 0) > EQUAL:
        row.rounding = _rounding(settings, preparation, row.losses, folder / "halves")
    row.names = _attempt(lambda: _names(folder / "base", adapter))
    row.merge = _attempt(lambda: _merged(settings, adapter, folder))


def _settings(base: Path, rows: Path) -> dict[str, Any]:
    return {
        "model": {"model_name_or_path": str(base), "dtype": "float32"},
        "data": {"train": str(rows / "train.jsonl"), "validation": str(rows / "validation.jsonl"), "max_length": 96},
        "train": {
            "max_steps": STEPS, "effective_batch_size": BATCH, "learning_rate": LEARNING_RATE, "lora_r": RANK,
            "warmup_ratio": 0.0, "lr_scheduler_type": "constant",
        },
    }  # fmt: skip


def _rows(folder: Path) -> Path:
    """The folder with the rows: 24 to learn from and 8 to validate on, of the embedded example."""
    lines = (ROOT / "tuner" / "demo" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:24]), encoding="utf-8")
    (folder / "validation.jsonl").write_text("".join(lines[24:32]), encoding="utf-8")
    return folder


def _assignment(folder: Path, params: Mapping[str, Any]) -> Any:
    from tuner.contract import Assignment

    folder.mkdir(parents=True, exist_ok=True)
    return Assignment(0, dict(params), SEED, POINTS, str(folder))


def _solo(program: Any, folder: Path) -> tuple[list[float], Path, Any, str]:
    """A trial of tuner: its losses, the folder of its adapter, its LoraConfig, and the parts that have an adapter."""
    setup = program.start(_assignment(folder, {}))
    config, losses, adapter = program.trial.config, [], None
    while True:
        evaluation = program.step()
        losses.append(evaluation.eval_loss)
        adapter = evaluation.adapter or adapter
        if evaluation.done:
            break
    program.stop()
    return losses, Path(str(adapter)), config, setup.parts


def _packed(settings: dict[str, Any], preparation: Any, solo: list[float], folder: Path) -> str:
    """The largest difference of a packed trial's losses to `solo`, or why it is refused."""
    from trainables.packed.engine import Engine
    from tuner.contract import Fault, Unpackable

    try:
        engine = Engine(settings, preparation, 2)
        engine.join(0, _assignment(folder / "own", {}))
        engine.join(1, _assignment(folder / "beside", {"learning_rate": LEARNING_RATE / 3, "lora_r": 2 * RANK}))
        losses: list[float] = []
        while engine.busy:
            for slot, outcome in engine.advance():
                if isinstance(outcome, Fault):
                    return _failed(outcome)
                if slot == 0:
                    losses.append(outcome.eval_loss or float("nan"))
                engine.confirm(slot)
        return _apart(losses, solo)
    except Unpackable as why:
        return f"refused: {why.message.partition(' cannot be packed: ')[2] or why.message}"
    except Exception as error:
        return _failed(error)


def _rounding(settings: dict[str, Any], preparation: Any, solo: list[float], folder: Path) -> str:
    """The largest difference to `solo` of the same trial in micro-batches of half the size: the same mathematics."""
    from trainables.sft import SFT

    halves = {**settings, "train": {**settings["train"], "per_device_train_batch_size": BATCH // 2}}
    return _attempt(lambda: _apart(_solo(SFT(halves, preparation), folder)[0], solo))


def _textbook_trains(folder: Path, targets: Any) -> str:
    """ "trains", or the error of a plain SFTTrainer with an adapter on `targets`."""
    from peft import LoraConfig

    found = _attempt(lambda: _textbook(folder, LoraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM")))
    return found if isinstance(found, str) else "trains"


def _textbook(folder: Path, config: Any) -> list[float]:
    """The losses of a plain SFTTrainer over the same rows. config: of its adapter."""
    import torch
    import transformers
    from datasets import load_dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.utils import create_model_from_path

    model = create_model_from_path(str(folder / "base"), dtype=torch.float32, device_map="cpu")
    rows = load_dataset(
        "json", data_files={name: str(folder / f"{name}.jsonl") for name in ("train", "validation")},
        cache_dir=str(folder / "datasets"),
    )  # fmt: skip
    losses: list[float] = []

    class Heard(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            losses.append(metrics["eval_loss"])

    transformers.set_seed(SEED)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder / "textbook"), max_steps=STEPS, per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=8, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", warmup_steps=0,
            max_length=96, gradient_checkpointing=False, bf16=False, use_cpu=True, eval_strategy="steps",
            eval_steps=round(STEPS * POINTS[0]), save_strategy="no", report_to="none", disable_tqdm=True, seed=SEED,
            data_seed=SEED, logging_strategy="no",
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=AutoTokenizer.from_pretrained(str(folder / "base")),
        peft_config=config,
        callbacks=[Heard()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return losses


def _moves(adapter: Path, parts: str) -> str:
    """The parts that have an adapter; and which groups of layers have not moved from the zeros that B begins with."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    moved = {name: bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name}
    groups: dict[str, list[bool]] = {}
    for name, has_moved in moved.items():
        groups.setdefault(re.sub(r"\.\d+\.", ".*.", _module(name)), []).append(has_moved)
    dead = [group for group, members in groups.items() if not any(members)]
    told = re.sub(r" [\d.]+[KMBT]?(?=[,;]|$)", "", parts)
    if dead:
        return f"fails: {len(dead)} of {len(groups)} groups did not move: {_listed(dead)}"
    still = sum(not has_moved for has_moved in moved.values())
    return f"{told} ({still} of {len(moved)} layers did not move)" if still else told


def _names(base: Path, adapter: Path) -> str:
    """Whether plain PEFT loads every tensor of the adapter over the class that the checkpoint's config names."""
    import json

    import torch
    import transformers
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    named = json.loads((base / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    fresh = getattr(transformers, named).from_pretrained(str(base), dtype=torch.float32)
    modules = {name for name, _ in fresh.named_modules()}
    saved = load_file(adapter / "adapter_model.safetensors")
    layers = {_module(name) for name in saved}
    foreign = sorted(layers - modules)
    if foreign:
        return f"fails: {len(foreign)} of {len(layers)} are no modules of {named}: {_listed(foreign)}"
    loaded = get_peft_model_state_dict(PeftModel.from_pretrained(fresh, str(adapter)))
    lost = sorted(set(saved) ^ set(loaded)) or [
        name for name, tensor in saved.items() if not torch.equal(tensor, loaded[name])
    ]
    if lost:
        return f"fails: PEFT loads {len(saved) - len(lost)} of {len(saved)} tensors: {_listed(lost)}"
    files = set(_tensors(base))
    other = sorted(layer for layer in layers if not any(name.startswith(f"{layer}.") for name in files))
    return f"the class's (file: {_nearest(other[0], files)})" if other else "the class's"


def _module(name: str) -> str:
    """The module of the base that a tensor of an adapter is on."""
    return re.sub(r"(\.base_layer)*\.lora_.*$", "", name).removeprefix(_PREFIX)


def _nearest(layer: str, files: Iterable[str]) -> str:
    """The name in the checkpoint's files that most resembles a layer's, with its number as `*`."""
    import difflib

    last = layer.rpartition(".")[2]
    alike = sorted(name for name in files if f".{last}." in name) or sorted(files)
    near = difflib.get_close_matches(layer, alike, n=1, cutoff=0.0)
    return re.sub(r"\.\d+(?=\.)", ".*", near[0]) if near else "none"


def _merged(settings: dict[str, Any], adapter: Path, folder: Path) -> str:
    """How many tensors of the checkpoint the merged folder has."""
    from trainables.sft import SFT

    SFT.merge(settings, adapter, folder / "merged")
    before, after = _tensors(folder / "base"), _tensors(folder / "merged")
    same = {name for name, shape in before.items() if after.get(name) == shape}
    told = f"{len(same)} of {len(before)}"
    return told if len(same) == len(before) else f"fails: {told} tensors"


def _tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name, of all safetensors files in a folder."""
    from trainables.models import checkpoint

    files = folder.glob("*.safetensors")
    return {name: tensor.shape for file in files for name, tensor in checkpoint.header(file).items()}


def _apart(ours: list[float], theirs: list[float]) -> str:
    """The largest difference of two curves."""
    if len(ours) != len(theirs):
        return f"fails: {len(ours)} evaluations and {len(theirs)}"
    by = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    if by != by:
        return "fails: losses that are no numbers"
    return "0" if by == 0 else f"{by:.0e}"


def _number(cell: str) -> float | None:
    """The difference that a cell has; None where it has none."""
    with contextlib.suppress(ValueError):
        return float(cell)
    return None


def _attempt(call: Callable[[], Any]) -> Any:
    """What `call` gives, or its error in a line."""
    try:
        return call()
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> str:
    if os.environ.get("TRACE"):
        traceback.print_exception(error)
    return f"fails: {line_of(error)}"


def line_of(error: BaseException) -> str:
    """The first line of an error, cut to what a table can hold."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:160]


def _what(error: Any) -> str:
    """What an InputError says is wrong, in a line."""
    return str(error.what).splitlines()[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
