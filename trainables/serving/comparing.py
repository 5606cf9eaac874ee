"""Compares what was written with the trained model: by logits, and by the token ids of the tokenizer beside it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.models import base
from trainables.models.merging import require_all, unrounded
from trainables.serving import plain
from trainables.settings import NF4, ModelSettings, Settings
from tuner.contract import InputError, module_command

TEXTS = (
    "def mean(values):\n    return sum(values) / len(values)\n",
    "The train from Zürich to Tokyo leaves at 7:45; it costs 12.50 €, said Mr. O'Neill.",
)
"""What is computed. Code and prose, of signs that most vocabularies have."""
_LONGEST = 64
"""Token ids of a text that are computed."""
_NOISE = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""By the dtype of the products: the share of the largest logit that two computations of the same may differ by."""
_ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""The share of the largest logit that what was written may differ by. A merge in bfloat16 rounds every weight."""


@dataclass(frozen=True)
class Reference:
    """What the trained model computes."""

    ids: list[list[int]]
    """The token ids of each text, by the tokenizer that the rows were made with."""
    logits: list[torch.Tensor]
    """Of each text: [tokens, vocabulary], float32."""
    effect: float
    """How far the adapter moves the logits of the base, at most."""
    dtype: torch.dtype
    """Of the products."""

    @property
    def largest(self) -> float:
        """The largest magnitude of a logit."""
        return max(float(one.abs().max()) for one in self.logits)

    @property
    def allowed(self) -> float:
        """How far logits may differ: by a share of the largest, but not by half of what the adapter does."""
        share = min(_ALLOWED[self.dtype] * self.largest, self.effect / 2)
        return max(share, _NOISE[self.dtype] * self.largest)


def reference(settings: Settings, adapter: Path, tokenizer: Any, *, merge: bool) -> Reference:
    """Computes the logits of the adapter on the base as the program loads it; for a merge, on the base that it is
    merged into. Raises InputError."""
    from peft import PeftModel, get_peft_model_state_dict

    ids = [list(tokenizer(text)["input_ids"][:_LONGEST]) for text in TEXTS]
    loaded = unrounded(settings.model) if merge else base.load(settings.model)
    adapted = PeftModel.from_pretrained(loaded, str(adapter)).eval()
    require_all(adapter, get_peft_model_state_dict(adapted))
    found = plain.logits(adapted, ids)
    with adapted.disable_adapter():
        without = plain.logits(adapted, ids)
    effect = max(float((a - b).abs().max()) for a, b in zip(found, without, strict=True))
    made = Reference(ids, found, effect, _products(settings.model, merge=merge))
    del adapted, loaded
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the next process loads the base again
    return made


def compare(settings: Settings, known: Reference, written: Path, folder: Path, tokenizer: Any, *, merged: bool) -> str:
    """Loads what was written in a new process, and says what the comparison found. folder: of the base's files.

    Raises InputError where the logits or the tokens are not those of the trained model.
    """
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        said, found = _elsewhere(_request(settings, known, written, folder, merged=merged), Path(place))
    ids = [list(one)[:_LONGEST] for one in said["ids"]]
    if ids != known.ids or said["template"] != tokenizer.chat_template:
        what = "other token ids" if ids != known.ids else "another chat template"
        raise _refused(written, f"its tokenizer gives {what} than the one that the rows were made with")
    if [one.shape for one in found] != [one.shape for one in known.logits]:
        raise _refused(written, f"its logits have the shape {tuple(found[0].shape)}, those of the trained model "
                                f"{tuple(known.logits[0].shape)}")  # fmt: skip
    difference = max(float((a - b).abs().max()) for a, b in zip(found, known.logits, strict=True))
    told = (f"logits of up to {known.largest:.3g}, of which the adapter moves some by {known.effect:.3g}, differ from "
            f"those of the trained model by up to {difference:.2g}; allowed {known.allowed:.2g}")  # fmt: skip
    if not difference <= known.allowed:  # a NaN is refused too
        raise _refused(written, told)
    return told


def _refused(written: Path, what: str) -> InputError:
    return InputError(
        f"loaded by transformers and PEFT alone, it is not the trained model: {what}",
        where=str(written),
        expected="what was trained",
        remedy="the adapter in best/ is as it was trained: load it as its README.md says",
    )


def _products(model: ModelSettings, *, merge: bool) -> torch.dtype:
    if isinstance(model.quantization, NF4) and not merge:
        return base.compute_dtype(model.quantization)
    return base.dtype(model)


def _request(settings: Settings, known: Reference, written: Path, folder: Path, *, merged: bool) -> dict[str, Any]:
    model = settings.model
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantized = isinstance(model.quantization, NF4) and not merged and not config.get("quantization_config")
    nf4 = None
    if quantized and isinstance(model.quantization, NF4):
        compute = str(base.compute_dtype(model.quantization)).removeprefix("torch.")
        nf4 = {"double_quant": model.quantization.double_quant, "compute": compute}
    named = str((config.get("architectures") or [""])[0])
    return {
        "folder": str(written if merged else folder),
        "adapter": None if merged else str(written),
        "written": str(written),
        "class": named if named.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) else "",
        "dtype": str(base.dtype(model)).removeprefix("torch."),
        "device": str(base.device()),
        "attention": model.attention,
        "own_code": model.trust_remote_code,
        "nf4": nf4,
        "texts": TEXTS,
        "ids": known.ids,
    }


def _elsewhere(asked: Mapping[str, Any], place: Path) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """What the new process says, and its logits. place: a folder for its files. Raises InputError."""
    import safetensors.torch

    request, answer, logits = place / "request.json", place / "answer.json", place / "logits.safetensors"
    request.write_text(json.dumps({**asked, "logits": str(logits)}), encoding="utf-8")
    done = subprocess.run(
        module_command("trainables.serving.plain", str(request), str(answer)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not answer.is_file():
        sys.stderr.write(done.stderr)
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"what was written cannot be loaded by transformers and PEFT alone: {last}",
                         where=asked["written"], expected="a folder that both load")  # fmt: skip
    found = safetensors.torch.load_file(logits)
    return json.loads(answer.read_text(encoding="utf-8")), [found[str(at)] for at in range(len(found))]
