"""Saves adapters, each to a folder beside its place, which is then renamed; and loads one to go on from. Importing this
costs no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from trainables.data import contents
from trainables.settings import Settings
from tuner.contract import SUMS, Fault, InputError, Reason

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FIXED = ("lora_r", "lora_alpha_mode", "target_modules", "use_dora", "init_lora_weights")
"""Parameters that an adapter has already."""


def save_adapter(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> Path:
    """Saves the adapter alone to `<folder>/adapter` as safetensors, replacing an older one; gives that folder.

    weights: by name, the adapter's tensors A [rank, in] and B [out, rank], where the model has only shards of them.
    Raises OSError.
    """

    def write(beside: Path) -> None:
        # "auto" would query the hub at every save for a change of the base's vocabulary
        given = {} if weights is None else {"state_dict": dict(weights)}
        model.save_pretrained(str(beside), save_embedding_layers=False, **given)
        (beside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    return replace_adapter(folder, write)


def replace_adapter(folder: Path, write: Callable[[Path], None]) -> Path:
    """Replaces `<folder>/adapter` by what `write` writes into the folder that it is given, with its checksums. Raises
    OSError."""
    place, beside, old = folder / "adapter", folder / ".adapter.new", folder / ".adapter.old"
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.stat()  # raises: `write` would create a missing folder, and one that was moved must stay moved
    try:
        write(beside)
        (beside / SUMS).write_text(json.dumps(contents.sums(beside)), encoding="utf-8")
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # half an adapter would use up a disk that is full
        raise
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place


def check_adapter(settings: Settings, varied: Collection[str]) -> None:
    """Raises InputError where the adapter that training goes on from is none, is another base's, or is not made as the
    settings say. varied: the parameters that a space searches."""
    train = settings.train
    if train.init_adapter is None:
        return
    folder, where = Path(train.init_adapter), f"train.init_adapter {train.init_adapter}"
    files = f"a folder with {CONFIG} and {WEIGHTS}"
    if fixed := [name for name in _FIXED if name in varied]:
        raise InputError(f"an adapter that is there has its own {fixed[0]}, and the space searches it", where=where,
                         expected=f"a space without {', '.join(fixed)}")  # fmt: skip
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("no PEFT adapter is here", where=where, expected=files) from error
    if not isinstance(config, dict) or not (folder / WEIGHTS).is_file():
        raise InputError("the adapter is incomplete", where=where, expected=files)
    base, own = config.get("base_model_name_or_path"), settings.model.model_name_or_path
    if base != own:
        raise InputError(f"the adapter is one of the base {base}, and the base is {own}", where=where,
                         expected="an adapter of the same base",
                         remedy=f"if it is the same base in another place, write that into {CONFIG}")  # fmt: skip
    wanted = {
        "r": train.lora_r,
        "lora_alpha": train.alpha,
        "use_rslora": train.lora_alpha_mode == "rslora",
        "use_dora": train.use_dora,
    }
    for name, value in wanted.items():
        if config.get(name) != value:
            raise InputError(f"the adapter has {name} {config.get(name)}, and the settings say {value}", where=where,
                             expected="settings that the adapter was made with")  # fmt: skip


def load_adapter(model: Any, folder: Path) -> None:
    """Copies the weights of an adapter over those of a PEFT model. Raises Fault where they are not of the same names
    and shapes, or cannot be read."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise Fault(Reason.CONFIG, f"train.init_adapter: {folder / WEIGHTS} cannot be read ({error})",
                    "restore it, or train without it") from error  # fmt: skip
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes, found = ({name: tuple(tensor.shape) for name, tensor in both.items()} for both in (own, weights))
    unlike = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
    if unlike:
        raise Fault(
            Reason.CONFIG,
            f"train.init_adapter: {folder} is not on the same layers, or not of the same size: {unlike[0]} is "
            f"{found.get(unlike[0], 'missing')}, expected {shapes.get(unlike[0], 'none')} ({len(unlike)} differ)",
            "give the target_modules and the rank that it was made with",
        )
    set_peft_model_state_dict(model, weights)
