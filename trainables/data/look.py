"""Looks at the rows of a search before it runs: what the model sees, what is learned, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainables import imports, quiet
from trainables.data import (
    contents,
    formats,
    look_rows,
    look_sets,
    sampling,
    showing,
    templates,
    tokenizers,
)
from trainables.data.findings import counting
from trainables.data.formats import Format
from trainables.data.look_sets import LookedSet
from trainables.data.look_tokens import Tokenized, TokenReader
from trainables.data.measuring import Measures
from trainables.data.review import Turns
from trainables.data.rows import Rows
from trainables.data.tokens import IGNORED
from trainables.hub import local_cache, sources
from trainables.settings import DataSettings, Settings
from tuner.contract import Finding, InputError, Look, LookRequest, RowSet, ShownRow

_IMAGES = "whose images count as one token each here: the base's processor, which has not seen them, knows better"
_BRIEF, _FULL = 240, 20_000
"""Tokens of a piece that are shown, of several rows and of one."""


OfImages = Callable[[Settings, Format], TokenReader]
"""Makes the reader of rows with images, which needs the base's processor."""


def look(settings: Settings, request: LookRequest, of_images: OfImages | None = None) -> Look | None:
    """The rows as a search with these settings would learn them. Raises InputError.

    None with `only_here`, where rows or tokenizer are not on this machine. torch is not imported, unless rows have
    images and it is not `only_here`. of_images: None: an image counts as one token.
    """
    if request.only_here:
        held = _held(settings)
        if held is None:
            return None
        settings = held
    if settings.model.trust_remote_code and not request.foreign_code:
        model = settings.model.model_copy(update={"trust_remote_code": False})
        settings = settings.model_copy(update={"model": model})
    quiet.before_imports()
    with imports.without_torch():
        read = look_rows.read(settings.data, request)
        fmt = formats.detect(read[0][0], settings.data)
        if not fmt.images or request.only_here or of_images is None:
            return _look(settings, request, read, fmt)
    return _look(settings, request, read, fmt, of_images(settings, fmt))


def _look(
    settings: Settings,
    request: LookRequest,
    read: tuple[tuple[Rows, int, str], look_rows.Read],
    fmt: Format,
    of_images: TokenReader | None = None,
) -> Look:
    model, data = settings.model, settings.data
    (train, total, sampled), (given, given_total, given_sampled) = read
    notes: tuple[str, ...] = ()
    if of_images is None:
        tokenizer, notes = tokenizers.load(model, data, alone=True)
    else:
        tokenizer = of_images.tokenizer
    train, left_out = look_rows.kept(train, fmt, data, "train", request.tell)
    if given is not None:
        given, more = look_rows.kept(given, fmt, data, "validation", request.tell)
        left_out += more
    sets = look_sets.sets(train, total, sampled, data, (given, given_total, given_sampled))
    sets[0].findings += left_out
    place = data.chat_template or model.tokenizer
    shown = []
    for found in sets:
        look_sets.examine(found, fmt, data, request.tell)
        if found.shaped:
            first = next(iter(found.shaped))
            tried = None if fmt.images else found.shaped[first]
            template = templates.check(tokenizer, fmt, data, place, tried, found.rows.where(first))
            turns = Turns() if fmt.images else found.turns
            lost, error = look_rows.unwritten(found.shaped, turns, found.rows, tokenizer, place)
            found.findings += lost
            found.refused = found.refused or error
            shown.append(_looked_at(found, of_images or TokenReader(fmt, tokenizer, data, template), request))
        else:
            shown.append(_unlooked(found))
    shared = tuple(look_sets.shared(sets))
    if fmt.images and of_images is None:
        shared += (Finding("told", _IMAGES, sum(one.rows for one in shown)),)
    if request.row is not None and not any(one.shown for one in shown):
        raise InputError(f"no row {request.row}", where=train.source, expected=_numbers(train))
    facts = {"format": str(fmt), "learns": _learned(fmt, data)}
    facts |= {"read": "; ".join(sets[0].read_as)} if sets[0].read_as else {}
    facts |= {"note": notes[0]} if notes else {}
    refused = next((found.refused for found in sets if found.refused), None)
    return Look(facts, model.tokenizer, data.max_length, "data.max_length", tuple(shown), shared,
                refused.to_dict() if refused else None)  # fmt: skip


def _held(settings: Settings) -> Settings | None:
    """The settings with the tokenizer's folder on this machine, in the hub's cache too; None where it or rows are
    elsewhere."""
    model, data = settings.model, settings.data
    rows = (*sources.names(data.train), *sources.names(data.validation))
    source = sources.tokenizer_alone(model)
    if not all(Path(name).exists() or contents.matching(name) for name in rows):
        return None
    if source is None:
        return settings if Path(model.tokenizer).is_dir() else None
    try:
        held = local_cache.look(source)
    except OSError:
        return None
    if held is None or not held.is_complete:
        return None
    return settings.model_copy(update={"model": model.model_copy(update={"tokenizer_name_or_path": str(held.folder)})})


def _learned(fmt: Format, data: DataSettings) -> str:
    if data.assistant_only_loss:
        return "the assistant's turns (assistant_only_loss)"
    if fmt.name == "prompt-completion" and data.completion_only_loss is not False:
        return "the completion"
    return "every token of a row but its first, which nothing predicts"


def _numbers(rows: Rows) -> str:
    whole = LookedSet("", rows, len(rows.rows))
    return f"{whole.place(0)} to {whole.place(len(rows.rows) - 1)}"


def _looked_at(found: LookedSet, reader: TokenReader, request: LookRequest) -> RowSet:
    """The set in tokens."""
    data, tokenizer = reader.data, reader.tokenizer
    indices: Sequence[int] = list(found.shaped)
    if not request.whole:
        indices = sampling.draw(dict(zip(indices, found.sizes, strict=True)), request)
    sampled = found.sampled
    if len(indices) < len(found.shaped):
        sampled = f"{len(indices):,} of {found.total:,} rows, drawn from all of them"
    wanted = _wanted(found, indices, request)
    measures = Measures(data.max_length)
    unknown_id = _unknown_id(tokenizer)
    unknown, unknown_in, shown = 0, list[int](), list[ShownRow]()
    unlearned, beyond, cut = list[int](), list[int](), list[int]()
    errors: dict[int, InputError] = {}
    read = sorted({*indices, *wanted})
    count = counting(request.tell, f"tokenizing the {found.name} rows", len(read))
    for done, one in enumerate(reader.read(found, read, wanted)):
        count(done)
        if not isinstance(one, Tokenized):
            errors[one[0]] = one[1]
            continue
        targets = [place for place, label in enumerate(one.labels) if label != IGNORED]
        fate = ""
        if not targets:
            unlearned.append(one.index)
            fate = "left out: it has no token to learn"
        elif targets[0] >= data.max_length:
            beyond.append(one.index)
            fate = f"left out: all that is learned lies beyond {data.max_length:,} tokens"
        elif len(one.ids) > data.max_length:
            cut.append(one.index)
            fate = f"cut at {data.max_length:,} tokens"
        measures.add(len(one.ids), targets)
        if unknown_id is not None and (number := one.ids.count(unknown_id)):
            unknown += number
            unknown_in.append(one.index)
        if one.index in wanted:
            most = _BRIEF if request.row is None else _FULL
            parts = showing.pieces(one.ids, one.labels, tokenizer, data.max_length, most)
            learned = len(targets) - (targets[:1] == [0])
            shown.append(ShownRow(found.place(one.index), len(one.ids), learned, parts, fate, one.pictures))
    found.refuse(list(errors), errors.__getitem__)
    limit = f"max_length={data.max_length}"
    found.add("left out", "with no token to learn", unlearned)
    found.add("left out", f"with nothing to learn within {limit}", beyond)
    found.add("cut", f"longer than {limit}", cut)
    found.add("told", "with tokens that the tokenizer does not know", unknown_in)
    if measures.lengths and len(unlearned) + len(beyond) == len(measures.lengths):
        what = f"none of the {len(measures.lengths):,} {found.name} rows that were looked at has a token to learn"
        longest = max(measures.lengths)
        remedy = f"set data.max_length to at least {longest}" if beyond else "check the rows' texts and the mask"
        found.refused = found.refused or InputError(what, where=found.rows.source, remedy=remedy)
    return RowSet(
        found.name, found.rows.source, found.total, len(measures.lengths), measures.tokens, measures.learned,
        None if unknown_id is None else unknown, measures.quantiles(), measures.histogram(), measures.at(),
        tuple(found.findings), tuple(shown), sampled, reader.figures(found),
    )  # fmt: skip


def _unlooked(found: LookedSet) -> RowSet:
    """A set of which no row can be tokenized."""
    return RowSet(found.name, found.rows.source, found.total, 0, 0, 0, None, findings=tuple(found.findings))


def _wanted(found: LookedSet, indices: Sequence[int], request: LookRequest) -> set[int]:
    """The indices of the rows to show: the one of a number, or some that are spread over the training rows."""
    if request.row is not None:
        ends = (f" {request.row}", f":{request.row}")
        return {index for index in found.shaped if found.rows.where(index).endswith(ends)}
    most = min(request.show, len(indices)) if found.name == "train" else 0
    return {indices[k * len(indices) // most] for k in range(most)}


def _unknown_id(tokenizer: Any) -> int | None:
    """The id of the token for what cannot be written; None where there is none, or where it is the end token too."""
    unknown = tokenizer.unk_token_id
    return None if unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id) else unknown
