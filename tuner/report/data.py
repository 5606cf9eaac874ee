"""Writes the rows of a search as the model sees them, as text. A bar at the left marks what is learned."""

from __future__ import annotations

from tuner.contract import Bin, Finding, Look, Piece, RowSet, ShownRow
from tuner.error_text import shown_path
from tuner.report import formatting as words
from tuner.report.lines import Line, clean, crop, labelled, line, pad, shorten, width_of

MARK = "▌"
"""Before each line of text that is learned."""
BAR = "█"
_MARGIN = 7
_LINES = 8
"""Lines of a piece that are shown of it, where several rows are shown."""
_NARROW = 60
"""Columns below which the table has short headings."""
KINDS = {"refused": ("wrong", "bad"), "left out": ("out", "warn"), "cut": ("cut", "warn"), "told": ("note", "warn")}
"""The label and the style of a finding, by what becomes of its rows."""
_ESCAPES = {"\t": "→   ", "\r": "␍"}


def data_report(look: Look, width: int, *, note: str = "", brief: bool = True, most: int | None = None) -> list[Line]:
    """The text of a look. note: a sentence for the user. brief: a long piece of a row is shown in part. most: rows."""
    out: list[Line] = []
    for label, text in look.facts.items():
        out += labelled(label, clean(text), width, divided=True)
    tokenizer = f"by the tokenizer of {clean(shown_path(look.tokenizer))}"
    out += labelled("tokens", tokenizer, width, divided=True)
    out += labelled("note", note, width, "warn") if note else []
    for found in look.sets:
        out += [(), *_set(found, look, width)]
    for finding in look.findings:
        out += [(), *_finding(finding, width)]
    rows = [row for found in look.sets for row in found.shown]
    if rows:
        legend = line(" " * _MARGIN, (MARK, "good"), (" marks what is learned", "dim"))
        out += [(), crop(legend, width)]
    for row in rows[:most]:
        out += [(), *_row(row, look, width, brief)]
    return out


def short_report(look: Look, width: int) -> list[Line]:
    """The figures in a few lines, for `plan`."""
    out: list[Line] = []
    for found in look.sets:
        text = f"{found.name}: {_counts(found)}"
        if found.lengths:
            text += f", {found.lengths['shortest']:,} to {found.lengths['longest']:,} each"
        out += labelled("rows" if not out else "", clean(text), width)
    return out


def short_notes(look: Look) -> list[str]:
    """The findings as sentences."""
    told = [f"{found.name}: {_told(finding)}" for found in look.sets for finding in found.findings]
    return told + [_told(finding) for finding in look.findings]


def counted(found: RowSet) -> str:
    """ "1,443 rows", and which of them were looked at."""
    rows = f"{found.rows:,} row{'' if found.rows == 1 else 's'}"
    return f"{rows} (figures of {found.sampled}; --all takes all)" if found.sampled else rows


def _counts(found: RowSet) -> str:
    if not found.tokens:
        return counted(found)
    share = words.whole_percent(found.learned / found.tokens)
    return f"{counted(found)}, {words.count(found.tokens)} tokens, {words.count(found.learned)} learned ({share})"


def _set(found: RowSet, look: Look, width: int) -> list[Line]:
    out = [crop(line((found.name, "strong"), f"  {clean(shown_path(found.source))}"), width)]
    out += labelled("rows", _counts(found), width)
    if found.lengths:
        out += labelled("length", lengths_text(found), width)
        out += _histogram(found.histogram, width) if found.histogram else []
        out += _at(found, look, width)
    for label, text in found.figures.items():
        out += labelled(label, clean(text), width, divided=True)
    if found.unknown is not None and found.tokens:
        share = words.percent(found.unknown / found.tokens)
        out += labelled("", f"{found.unknown:,} tokens ({share}) are unknown to the tokenizer", width)
    for finding in found.findings:
        out += _finding(finding, width)
    return out


def lengths_text(found: RowSet) -> str:
    """The lengths of the rows of a set in a sentence."""
    of = found.lengths
    return (f"{of['shortest']:,} to {of['longest']:,} tokens a row; half of them have at most {of['median']:,}, "
            f"90% {of['90%']:,}, 99% {of['99%']:,}")  # fmt: skip


def bin_label(one: Bin) -> str:
    """ "10-19", or "100-" for the last bar."""
    return f"{one.low:,}-" if one.high is None else f"{one.low:,}-{one.high:,}"


def _histogram(bins: tuple[Bin, ...], width: int) -> list[Line]:
    labels = [bin_label(one) for one in bins]
    label_width = max(map(len, labels))
    counts = [f"{one.rows:,}" for one in bins]
    room = max(4, min(40, width - _MARGIN - label_width - max(map(len, counts)) - 4))
    most = max(one.rows for one in bins)
    out = []
    for one, label, number in zip(bins, labels, counts, strict=True):
        bar = BAR * -(-one.rows * room // most)
        out.append(
            crop(line(" " * _MARGIN, f"{label:>{label_width}}  ", (pad(bar, room), "bar"), f"  {number}"), width)
        )
    return out


def _at(found: RowSet, look: Look, width: int) -> list[Line]:
    """The table of candidates for the longest length."""
    name = look.limit_name.rpartition(".")[2]
    head = (
        [name, "rows cut", "left out", "learned tokens lost"] if width >= _NARROW else ["length", "cut", "out", "lost"]
    )
    rows = []
    for one in found.at:
        shares = (one.cut / found.looked, one.left_out / found.looked, one.lost / found.learned if found.learned else 0)
        cells = [words.whole_percent(share) if share else "-" for share in shares]
        rows.append((one.length, [f"{one.length:,}", *cells]))
    widths = [max(width_of(row[i]) for row in (head, *(cells for _, cells in rows))) for i in range(len(head))]
    margin = " " * (_MARGIN - 2)

    def written(cells: list[str]) -> str:
        return "  ".join(f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=True))

    out = [crop(line((f"{margin}  {written(head)}", "head")), width)]
    for length, cells in rows:
        ours = length == look.limit
        text = f"{margin}{'▸ ' if ours else '  '}{written(cells)}"
        out.append(crop(line((text, "strong" if ours else "")), width))
    return out


def _finding(finding: Finding, width: int) -> list[Line]:
    label, style = KINDS[finding.kind]
    out = labelled(label, clean(_told(finding)), width, style, divided=True)
    return out + (labelled("", clean(finding.remedy), width, divided=True) if finding.remedy else [])


def _told(finding: Finding) -> str:
    """ "3 rows equal to an earlier row: line 17: as line 3, ..."."""
    rows = f"{finding.count:,} row{'' if finding.count == 1 else 's'}"
    more = ["…"] if 0 < len(finding.examples) < finding.count and finding.kind != "told" else []
    examples = "; ".join(shorten(clean(text), 160) for text in [*finding.examples, *more])
    return f"{rows} {finding.what}{f' ({examples})' if examples else ''}"


def _row(row: ShownRow, look: Look, width: int, brief: bool) -> list[Line]:
    head = f"{row.tokens:,} token{'' if row.tokens == 1 else 's'}, {row.learned:,} learned"
    out = [crop(line((f"{row.place} · {head}", "strong")), width)]
    out += labelled("", row.fate, width, "warn") if row.fate else []
    beyond = False
    for piece in row.pieces:
        if piece.beyond and not beyond:
            beyond = True
            out.append(crop(line((f"{'':>{_MARGIN}}--- cut here, at {look.limit:,} tokens ---", "warn")), width))
        out += _piece(piece, width, brief)
    return out


def _piece(piece: Piece, width: int, brief: bool) -> list[Line]:
    texts = [*text_rows(piece.text, width - _MARGIN)]
    if piece.hidden:
        texts += [f"… {piece.hidden:,} tokens …", *text_rows(piece.tail, width - _MARGIN)]
    if brief and len(texts) > _LINES:
        half = _LINES // 2
        texts = [*texts[:half], f"… {len(texts) - 2 * half:,} lines …", *texts[-half:]]
    style = "dim" if piece.beyond else "good" if piece.learned else ""
    mark = (MARK, style) if piece.learned else (" ", "")
    return [line(" " * (_MARGIN - 2), mark, " ", (text, style)) for text in texts]


def visible(text: str) -> str:
    """The text with an escape for every character that is not printable, newlines but those: what a tokenizer saw, and
    nothing that steers a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else _ESCAPES.get(c) or c.encode("unicode_escape").decode() for c in text
    )


def text_rows(text: str, width: int) -> list[str]:
    """The lines of a text, each cut into rows of at most `width` cells. A newline at the end is shown as ↵, and spaces
    at the end as ␣."""
    text = visible(text)
    if text.endswith("\n"):
        text = f"{text[:-1]}↵"
    kept = text.rstrip(" ")
    text = kept + "␣" * (len(text) - len(kept))
    rows = []
    for whole in text.split("\n"):
        row, used = "", 0
        for c in whole:
            cells = width_of(c)
            if used + cells > width and row:
                rows.append(row)
                row, used = "", 0
            row, used = row + c, used + cells
        rows.append(row)
    return rows
