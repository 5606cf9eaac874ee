"""Scores a base and adapters on it, one after the other, on the same rows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables import fingerprints, imports
from trainables.answers import metrics, prompts, sample
from trainables.answers.measuring import values_of
from trainables.answers.prompts import Prompt
from trainables.data import formats, reading, review, templates, tokenizing
from trainables.data.encoding import TextEncoder
from trainables.data.findings import counting
from trainables.data.rows import Row, Rows
from trainables.data.tokens import Tokens
from trainables.models import base_folder, checkpoint
from trainables.settings import DataSettings, Settings
from tuner.contract import MODEL, InputError, Scored, ScoredRow, ScoreRequest, Scores, Tell

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"

_Encoded = list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class _Set:
    """Rows to be scored."""

    rows: Rows
    shaped: list[Row]
    """The rows in TRL's format."""
    format: formats.Format
    encoded: _Encoded
    """The token ids and the labels of each row."""
    template: str | None
    """What replaces the tokenizer's chat template."""


def settings_of(source: str, data: Path | str) -> Settings:
    """Settings for a model, or for the folder of an adapter that names its base. data: the rows. Raises InputError."""
    folder = Path(source)
    model: dict[str, Any] = {"model_name_or_path": source}
    if (folder / _CONFIG).is_file():
        try:
            named = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(f"cannot be read ({error})", where=str(folder / _CONFIG),
                             expected="PEFT's config") from None  # fmt: skip
        if not isinstance(named, str) or not named:
            raise InputError("names no base", where=str(folder / _CONFIG), expected="base_model_name_or_path")
        model = {"model_name_or_path": named}
        if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            model["tokenizer_name_or_path"] = source
    return Settings.model_validate({"model": model, "data": {"train": str(data)}})


def score(settings: Settings, request: ScoreRequest, tell: Tell) -> Scored:
    """Loads the base and scores each candidate. tell: gets how far it is. Raises InputError and Fault."""
    functions = {spec: metrics.find(spec, "--metric") for spec in request.metrics}
    for name, folder in request.candidates.items():
        if folder != MODEL and not (Path(folder) / _WEIGHTS).is_file():
            raise InputError(f"has no {_WEIGHTS}", where=folder, expected=f"the adapter of {name} in safetensors")
    base_folder.check(settings.model)
    _require_same_base(settings, request)
    data = settings.data.model_copy(update={"train": request.rows, "validation": None, "split": request.split,
                                            "revision": None})  # fmt: skip
    settings = settings.model_copy(update={"data": data})
    encoder = TextEncoder(settings.model, settings.data)
    given, notes = _read(settings, request.rows, request, encoder, tell)
    other = _read(settings, request.also, request, encoder, tell, alike=False)[0] if request.also else None
    with imports.heavy():
        from trainables.answers import generating, losses
        from trainables.models import base, gpu
        from trainables.models.resident import Resident
        from trainables.out_of_memory import out_of_memory_faults
    gpu.require()
    tell("loading the base")
    with out_of_memory_faults():
        resident = Resident(base.load(settings.model))
    _require_known_ids(resident.model, settings, given)
    chosen = prompts.sampled(len(given.shaped), request.most_answers, request.seed) if request.answers else []
    asked = prompts.prompts([(at, given.shaped[at]) for at in chosen], given.format, encoder.tokenizer,
                            given.template, given.rows.where)  # fmt: skip
    if request.answers and not asked:
        raise InputError(f"no row has a prompt and an answer: the rows are {given.format}", where=given.rows.source,
                         expected="prompt and completion, or messages", remedy="--no-answers")  # fmt: skip
    most = request.most_tokens or sample.tokens_of(asked, encoder.tokenizer)
    stops = prompts.stops(encoder.tokenizer, resident.model, given.shaped, given.format)
    padding = encoder.tokenizer.pad_token_id
    found = []
    for name, folder in request.candidates.items():
        model = resident.model if folder == MODEL else _adapted(resident.model, folder)
        model.eval()
        with out_of_memory_faults():
            sums = losses.losses(model, given.encoded, padding, counting(tell, f"{name}: rows", len(given.encoded)))
            beside = losses.losses(model, other.encoded, padding) if other else []
            began = time.monotonic()
            made = generating.generate(
                model, [prompt.ids for prompt in asked], stops=stops, padding=padding, most=most,
                tell=counting(tell, f"{name}: answers", len(asked)),
            )  # fmt: skip
        texts = [encoder.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in made.ids]
        own = Scores(name, sums, _spread(texts, asked, len(given.shaped)), also=beside, cut=made.cut,
                     tokens=made.tokens, seconds=round(time.monotonic() - began, 3),
                     harness=_harness(settings, folder))  # fmt: skip
        found.append(_measured(own, functions, asked, texts))
        del model
        resident.restore()
    by_row = {prompt.row: prompt for prompt in asked}
    rows = [
        ScoredRow(given.rows.where(at), losses.targets(labels), *_of_prompt(by_row.get(at)))
        for at, (_, labels) in enumerate(given.encoded)
    ]
    return Scored(
        rows, found, {spec: metric.direction for spec, (metric, _) in functions.items()},
        [losses.targets(labels) for _, labels in other.encoded] if other else [], most, notes,
    )  # fmt: skip


def _read(
    settings: Settings, source: str, request: ScoreRequest, encoder: TextEncoder, tell: Tell, *, alike: bool = True
) -> tuple[_Set, list[str]]:
    """Reads rows and makes them token ids, those with nothing to predict left out; gives notes for the user too.

    alike: whether they must have the format of the rows that were learned from. Raises InputError.
    """
    data = settings.data.model_copy(update={"train": source})
    tell("reading the rows")
    rows = reading.read(source, data)
    fmt = formats.detect(rows, data)
    if alike and request.format and str(fmt) != request.format:
        raise InputError(f"the rows are {fmt}, and the trials learned from {request.format} rows", where=source,
                         expected=f"{request.format} rows: the loss must mean the same",
                         remedy="bring them into that format")  # fmt: skip
    if fmt.images:
        raise InputError("the rows have images, and answers to images are not scored", where=source,
                         expected="rows of text")  # fmt: skip
    reviewed = review.review(rows, fmt, data, "test", tell)
    rows = reviewed.rows
    if request.most_rows is not None:
        rows = rows.select(prompts.sampled(len(rows), request.most_rows, request.seed))
    notes = [str(finding) for finding in (*reviewed.findings, *encoder.check(replace(reviewed, rows=rows)))]
    shaped = list(review.shaped(rows, fmt, data))
    place = data.chat_template or settings.model.tokenizer
    template = templates.check(encoder.tokenizer, fmt, data, place, shaped[0], rows.where(0))
    kept, encoded, cut = [], [], 0
    count = counting(tell, "tokenizing the rows", len(rows))
    for at, row in enumerate(shaped):
        tokens = _tokens(row, fmt, encoder.tokenizer, data, template, rows.where(at))
        cut += tokens.truncated
        if tokens.label_tokens:
            kept.append(at)
            encoded.append((list(tokens.input_ids), list(tokens.labels)))
        count(at)
    if not kept:
        raise InputError(f"none of {len(rows)} rows has a token to predict within data.max_length={data.max_length}",
                         where=source, expected="rows with something to predict")  # fmt: skip
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} of {len(rows)} rows have nothing to predict within max_length="
                     f"{data.max_length} and are left out")  # fmt: skip
    if cut:
        notes.append(f"{cut} of {len(rows)} rows are longer than max_length={data.max_length} and are cut for the loss")
    return _Set(rows.select(kept), [shaped[at] for at in kept], fmt, encoded, template), notes


def _require_same_base(settings: Settings, request: ScoreRequest) -> None:
    """Raises InputError where the base is another than the adapter was trained on, as far as fingerprints tell."""
    known = request.made_of.get(fingerprints.BASE)
    if not isinstance(known, Mapping) or not isinstance(known.get("files"), Mapping):
        return
    whole = str(known.get("source")).endswith(fingerprints.EVERY_BYTE)
    model = settings.model.model_copy(update={"fingerprint": "whole" if whole else "sampled"})
    now = fingerprints.of_model(settings.model_copy(update={"model": model}))[fingerprints.BASE]["files"]
    changed = sorted(name for name in {*now, *known["files"]} if now.get(name) != known["files"].get(name))
    if changed:
        raise InputError(
            f"the base is not the one that the adapter was trained on: {checkpoint.listed(changed)} changed",
            where=model.model_name_or_path,
            expected=f"the base of {request.source}",
            remedy="put it back",
        )


def _tokens(row: Row, fmt: formats.Format, tokenizer: Any, data: DataSettings, template: str | None, at: str) -> Tokens:
    """The token ids of one row. at: its place. Raises InputError."""
    return tokenizing.tokenize([row], fmt, tokenizer, data, template, lambda _: at)


def _require_known_ids(model: Any, settings: Settings, given: _Set) -> None:
    highest, known = max(max(ids) for ids, _ in given.encoded), model.get_input_embeddings().num_embeddings
    if highest >= known:
        raise InputError(f"the rows contain token id {highest}, the model has {known} tokens",
                         where=settings.model.tokenizer,
                         expected="the tokenizer the model was trained with")  # fmt: skip


def _adapted(model: Any, folder: str) -> Any:
    """The base with an adapter. Raises InputError for an adapter of another base."""
    from peft import PeftModel, get_peft_model_state_dict

    from trainables.models.merging import require_all

    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except (RuntimeError, ValueError) as error:
        told = next((line.strip() for line in str(error).splitlines() if "mismatch" in line), str(error)[:200])
        raise InputError(f"the adapter does not fit the base: {told}", where=folder,
                         expected="the base that the adapter was trained on") from None  # fmt: skip
    require_all(Path(folder), get_peft_model_state_dict(adapted))
    return adapted


def _measured(own: Scores, functions: Mapping[str, Any], asked: Sequence[Prompt], texts: Sequence[str]) -> Scores:
    """The scores with every metric; one that fails for a row has no values."""
    measured, missing = {}, {}
    for spec, (_, function) in functions.items():
        values, why = values_of(function, asked, texts)
        if why:
            missing[spec] = why
        else:
            measured[spec] = _spread(values, asked, len(own.losses))
    return replace(own, metrics=measured, missing=missing)


def _spread(values: Sequence[Any], asked: Sequence[Prompt], total: int) -> list[Any]:
    """Values of the prompts in the places of their rows; None elsewhere."""
    found: list[Any] = [None] * total
    for prompt, value in zip(asked, values, strict=True):
        found[prompt.row] = value
    return found


def _of_prompt(prompt: Prompt | None) -> tuple[str, str, bool]:
    return ("", "", False) if prompt is None else (prompt.text, prompt.reference, True)


def _harness(settings: Settings, folder: str) -> str:
    model = settings.model
    words = [f"pretrained={model.model_name_or_path}"]
    words += [f"revision={model.model_revision}"] if model.model_revision else []
    words += [f"tokenizer={model.tokenizer}"] if model.tokenizer != model.model_name_or_path else []
    words += ["load_in_4bit=True", "bnb_4bit_quant_type=nf4"] if model.quantization.kind == "nf4" else []
    words += ["trust_remote_code=True"] if model.trust_remote_code else []
    return ",".join([*words, f"peft={folder}"] if folder != MODEL else words)
