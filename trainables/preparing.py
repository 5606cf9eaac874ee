"""Prepares the rows of a search: reads, checks, splits, tokenizes and stores them; and looks at them before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables import fingerprints
from trainables.answers import sample
from trainables.data import formats, reading, review, splitting, store, templates, tokenizers
from trainables.data.encoding import Encoder, TextEncoder
from trainables.data.findings import Finding
from trainables.data.look import look as look_at
from trainables.data.look_tokens import TokenReader
from trainables.data.review import Review
from trainables.data.rows import Rows
from trainables.data.tokens import Tokens
from trainables.images import vision
from trainables.models import base_folder, companions, reach
from trainables.models.inspecting import Inspection
from trainables.settings import DataSettings, Settings
from tuner.contract import COMPANIONS, Fault, InputError, Look, LookRequest, Preparation, Reason, Tell, silent

_DAMAGED = "the tokenizer's files of an earlier session were damaged: they were written again"
_ROW_IDS = "ids"


def prepare(settings: Settings, cache: Path, tell: Tell = silent) -> Preparation:
    """Reads, checks and tokenizes the rows; a second call with the same inputs finds the result of the first in
    `cache`. tell: gets how far it is.

    Raises InputError for rows or a base that cannot be used, and Fault where a set has nothing to learn.
    """
    folder = base_folder.check(settings.model)
    made_of = {
        **fingerprints.of_model(settings), **fingerprints.of_rows(settings), **fingerprints.of_adapter(settings),
    }  # fmt: skip
    files = made_of[fingerprints.BASE]["files"]
    inspection = Inspection(settings.model, folder, Path(cache) / "base.json", files)
    try:
        preparation = prepare_rows(settings, Path(cache), folder, tell)
        facts = dict(preparation.facts)
        facts[fingerprints.MADE_OF] = {**made_of, **fingerprints.of_ids(settings, facts.pop(_ROW_IDS))}
        inspected = inspection.result()
        facts[reach.FACT] = inspected.reach
        return replace(preparation, facts=facts, notes=(*inspected.notes, *preparation.notes))
    finally:
        inspection.close()


def look(settings: Settings, request: LookRequest) -> Look | None:
    """The rows as a search with these settings would learn them; see `data.look.look`. Raises InputError."""
    return look_at(settings, request, _image_reader)


def _image_reader(settings: Settings, fmt: formats.Format) -> TokenReader:
    from trainables import imports

    with imports.heavy():
        from trainables.images.looking import ImageTokenReader
    return ImageTokenReader(settings, fmt)


def prepare_rows(
    settings: Settings, cache: Path, base: Path | None = None, tell: Tell = silent
) -> Preparation:  # fmt: skip
    """The tokenized rows: found in `cache`, or made.

    base: the folder of the base's files, whose companions are kept beside the rows; None: nothing of them is looked at.
    Raises InputError for rows that cannot be used, and Fault where a set has nothing to learn.
    """
    folder = cache / store.fingerprint(settings)
    found = store.find(folder)
    if found is not None:
        vision.require_images(settings.model.vision, (), found.facts)
        if base is None or companions.are_whole(cache / COMPANIONS):
            return found
        lost = (_DAMAGED,) if companions.sums_of(cache / COMPANIONS).exists() else ()
        _keep_companions(tokenizers.load(settings.model, settings.data)[0], base, cache)
        return replace(found, notes=(*found.notes, *lost))
    damaged = store.drop(folder)

    data = settings.data
    tell("reading the rows")
    given = reading.read_sets(data)
    if store.fingerprint(settings) != folder.name:
        raise InputError("the files have changed while they were read", where=given.train.source,
                         expected="files that nobody writes to",
                         remedy="wait until they are complete, or copy them and name the copies")  # fmt: skip
    found_formats = {"train": formats.detect(given.train, data)}
    # before the tokenizer, which is slow to load: misnamed columns and bad rows are an error at once
    reviewed = {}
    if given.validation is not None:
        found_formats["validation"] = formats.detect(given.validation, data)
        _same_format(found_formats["train"], found_formats["validation"], given.validation)
    images = any(fmt.images for fmt in found_formats.values())
    vision.require_images(settings.model.vision, (), {vision.FACT: images})
    for name, rows in (("train", given.train), ("validation", given.validation)):
        if rows is not None:
            reviewed[name] = review.review(rows, replace(found_formats[name], images=images), data, name, tell)
    with _encoder(settings, images=images) as encoder, store.Draft(folder) as draft:
        if base is not None:
            _keep_companions(encoder.tokenizer, base, cache)
        notes = ("the tokenized rows of an earlier session were damaged: the rows were tokenized again",)
        return _encoded(settings, folder, given.findings, reviewed, encoder, draft, notes if damaged else (), tell)


def _encoder(settings: Settings, *, images: bool) -> Encoder:
    """The encoder of the rows, with the tokenizer or processor. Raises InputError."""
    if not images:
        return TextEncoder(settings.model, settings.data)
    from trainables import imports

    with imports.heavy():
        from trainables.images.encoding import ImageEncoder
    return ImageEncoder(settings.model, settings.data)


def _encoded(
    settings: Settings,
    folder: Path,
    told: Sequence[Finding],
    reviewed: Mapping[str, Review],
    encoder: Encoder,
    draft: store.Draft,
    last_notes: tuple[str, ...],
    tell: Tell,
) -> Preparation:
    """The rows of the reviewed sources, split, encoded and stored in `folder`. Raises InputError and Fault.

    told: what was found out when they were read. last_notes: sentences for the user, behind the others.
    """
    data, tokenizer, fmt = settings.data, encoder.tokenizer, reviewed["train"].format
    kept = reviewed.get("validation")
    train_rows, validation_rows = splitting.split(reviewed["train"].rows, kept.rows if kept else None, data)
    findings = [*told, *(finding for part in reviewed.values() for finding in part.findings)]
    shared = review.shared(reviewed["train"], train_rows, kept or reviewed["train"], validation_rows,
                           of_one_source=kept is None)  # fmt: skip
    findings += [shared] if shared else []
    for part in reviewed.values():
        findings += encoder.check(part)

    sets: dict[str, Tokens] = {}
    for name, rows in (("train", train_rows), ("validation", validation_rows)):
        sets[name], more = encoder.encode(name, rows, reviewed.get(name, reviewed["train"]), draft, tell)
        findings += more
        _require_targets(name, rows, sets[name], data)
    _require_known_tokens(settings, sets, tokenizer)
    if settings.metrics.names:
        _draw_answers(settings, validation_rows, fmt, encoder, draft)

    facts = {
        "format": str(fmt),
        "train": _facts(sets["train"]),
        "validation": _facts(sets["validation"]),
        "max_length": data.max_length,
        "pad_token": tokenizer.pad_token,
        "eos_token": tokenizer.eos_token,
        "chat_template": fmt.conversational,
        "max_token_id": max(tokens.highest for tokens in sets.values()),
        "data_fingerprint": folder.name,
        _ROW_IDS: {name: draft.fingerprint(name) for name in sets},
    } | encoder.facts()
    notes = encoder.notes + tuple(dict.fromkeys(map(str, findings)))
    notes += tuple(note for name, tokens in sets.items() for note in _notes(name, tokens, data, tokenizer.bos_token))
    notes += _beyond_positions(settings, max(tokens.longest_kept for tokens in sets.values()))
    preparation = Preparation(str(folder), sets["train"].tokens, facts, notes + last_notes)
    encoder.close()  # its files are whole
    draft.finish(preparation)
    return preparation


def _draw_answers(settings: Settings, rows: Rows, fmt: formats.Format, encoder: Encoder, draft: store.Draft) -> None:
    """Writes the sample of validation rows that trials answer. Raises InputError."""
    if fmt.images:
        raise InputError("the rows have images, and answers to images are not scored", where="metrics",
                         expected="rows of text", remedy="leave metrics out")  # fmt: skip
    shaped = list(review.shaped(rows, fmt, settings.data))
    place = settings.data.chat_template or settings.model.tokenizer
    template = templates.check(encoder.tokenizer, fmt, settings.data, place, shaped[0], rows.where(0))
    drawn = sample.draw(settings, rows, shaped, fmt, encoder.tokenizer, template)
    try:
        sample.write(drawn, draft.file(sample.FILE))
    except OSError as error:
        raise InputError(f"the rows to be answered cannot be written ({error.strerror or error})", where="metrics",
                         remedy="free some space, or set run.storage_path to another disk") from None  # fmt: skip


def _keep_companions(tokenizer: Any, base: Path, cache: Path) -> None:
    """Writes what belongs beside every adapter into `cache`. Raises InputError."""
    try:
        companions.keep(tokenizer, base, cache / COMPANIONS)
    except OSError as error:
        raise InputError(f"the tokenizer cannot be written ({error.strerror or error})", where=str(cache),
                         remedy="free some space, or set run.storage_path to another disk") from None  # fmt: skip


def _same_format(train: formats.Format, found: formats.Format, rows: Rows) -> None:
    """Raises InputError where the sets differ in format.

    A validation loss over every token says nothing about training on completions alone, and neither does one over texts
    without the chat template.
    """
    if found != train:
        raise InputError(f"the validation rows are {found}, the training rows {train}", where=rows.source,
                         expected=f"{train} rows: the loss must mean the same in both",
                         remedy="bring both into one format, or leave data.validation out")  # fmt: skip


def _facts(tokens: Tokens) -> dict[str, Any]:
    """What the plan tells of a set; lengths are in tokens."""
    return ({"image_tokens": tokens.image_tokens} if tokens.image_tokens else {}) | {
        "rows": tokens.rows,
        "tokens": tokens.tokens,
        "label_tokens": tokens.label_tokens,
        "mean_length": round(tokens.tokens / tokens.rows, 1),
        "max_length": tokens.longest_kept,
        "dropped_rows": tokens.dropped,
        "truncated_rows": tokens.truncated,
    }


def _notes(name: str, tokens: Tokens, data: DataSettings, begin: str | None) -> list[str]:
    total = tokens.rows + tokens.dropped
    notes = []
    if tokens.dropped:
        notes.append(f"{tokens.dropped} of {total} {name} rows have nothing to learn within max_length="
                     f"{data.max_length} and are left out")  # fmt: skip
    if tokens.truncated - tokens.masked_prompts > 0:
        notes.append(f"{tokens.truncated} of {total} {name} rows are longer than max_length={data.max_length} and are "
                     f"cut; the longest has {tokens.longest} tokens")  # fmt: skip
    if tokens.begun_twice:
        notes.append(f"{tokens.begun_twice} of {total} {name} rows begin with {begin} twice: their text has it, and "
                     "the tokenizer adds it once more")  # fmt: skip
    return notes


def _beyond_positions(settings: Settings, longest: int) -> tuple[str, ...]:
    """A note where rows are longer than the positions of config.json. Rotary positions work beyond them, worse; a base
    with a table of positions is refused when it is loaded."""
    config = base_folder.config(settings.model) or {}
    config = config.get("text_config") or config
    most = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(most, int) or longest <= most:
        return ()
    return (
        f"the longest row has {longest} tokens, and config.json says that the base has {most} positions: it was not "
        f"trained for what lies beyond; data.max_length={most} cuts it off",
    )


def _require_targets(name: str, rows: Rows, tokens: Tokens, data: DataSettings) -> None:
    """Raises Fault where a set has no target, with the likely cause."""
    if tokens.rows and tokens.label_tokens:
        return
    which = "validation set" if name == "validation" else "training set"
    total = tokens.rows + tokens.dropped
    if tokens.masked_prompts:
        cause = (f"every completion lies beyond max_length={data.max_length}: the longest prompt has "
                 f"{tokens.longest_prompt} tokens" if tokens.longest_prompt
                 else f"everything that is learned lies beyond max_length={data.max_length}")  # fmt: skip
        remedy = f"set data.max_length to at least {tokens.longest} to keep every row whole"
    elif data.assistant_only_loss:
        cause = "no row has a token of the assistant"
        remedy = "check the roles, and that the chat template marks the assistant's turns with {% generation %}"
    else:
        cause = "every row is empty or a single token"
        remedy = "check the rows' texts"
    state = "is empty" if not tokens.rows else "has nothing to learn"
    raise Fault(Reason.DATA, f"the {which} {state}: of {total} rows in {rows.source} none has a label token; {cause}",
                remedy)  # fmt: skip


def _require_known_tokens(settings: Settings, sets: dict[str, Tokens], tokenizer: Any) -> None:
    """Raises InputError where a token id is beyond the base's vocabulary."""
    size = base_folder.vocabulary(settings.model)
    highest = max(tokens.highest for tokens in sets.values())
    if size is not None and highest >= size:
        raise InputError(
            f"the tokenizer gives token id {highest} ({tokenizer.decode([highest])!r}), the model has {size} tokens",
            where=settings.model.tokenizer,
            expected="the tokenizer the model was trained with",
        )
