"""Adapters side by side: losses, metrics of answers, comparisons row by row, and the answers that changed most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuner.contract import Objective, Scored, Scores
from tuner.report import formatting as words
from tuner.report.lines import Line, clean, crop, labelled, line, pad, shorten, width_of
from tuner.results.judging import Judged, pair
from tuner.results.paired import Comparison, Estimate, Rows
from tuner.results.scoring import Evaluated

LOSS = Objective("loss", "loss per token", short="loss")
ALSO = Objective("also", "loss on the other rows")
_EXAMPLES = 3
"""Answers that became better, and as many that became worse, that are shown."""
_CELL = 34
_SHOWN = 400
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Measure:
    """What is measured of every candidate."""

    objective: Objective
    """Its name, and which way is better."""
    values: dict[str, list[float]]
    """By candidate: a value for each of `rows`."""
    rows: Rows
    """The rows that have a value."""
    places: list[int]
    """The index of each of them."""


def measures(scored: Scored) -> list[Measure]:
    """The loss per token and every metric that at least one candidate has."""
    found = [_losses(LOSS, [row.targets for row in scored.rows], {one.name: one.losses for one in scored.candidates})]
    places = [at for at, row in enumerate(scored.rows) if row.answered]
    for name, direction in scored.directions.items():
        values = {
            one.name: [float(one.metrics[name][at] or 0.0) for at in places]
            for one in scored.candidates
            if name in one.metrics
        }
        if values:
            objective = Objective(_identifier(name), direction="minimize" if direction == "minimize" else "maximize",
                                  label=clean(name)[:64])  # fmt: skip
            found.append(Measure(objective, values, Rows([1.0] * len(places)), places))
    if scored.also:
        found.append(_losses(ALSO, scored.also, {one.name: one.also for one in scored.candidates}))
    return found


def pairs(scored: Scored) -> Iterator[tuple[str, str]]:
    """The candidates that are compared, the one that is judged first: each with the first, and with the one before
    it."""
    names = [one.name for one in scored.candidates]
    for at in range(len(names) - 1, 0, -1):
        for beside in dict.fromkeys((at - 1, 0)):
            yield names[at], names[beside]


def evaluation(found: Evaluated, width: int) -> list[Line]:
    """The text."""
    scored = found.scored
    measured = measures(scored)
    out = _table(measured, found, width)
    out.append(())
    for one, other in pairs(scored):
        for text in _compared(measured, one, other):
            out += labelled("so", text, width)
    if found.judged is not None:
        out += labelled("judge", judged(found.judged), width, "warn" if found.judged.failed else "")
    for text in (*_missing(scored), *_cut(scored), *found.notes):
        out += labelled("note", clean(text), width, "warn")
    for title, rows in _changed(measured, scored).items():
        out += [(), line((title, "head")), *_examples(rows, scored, width)] if rows else []
    return out


def evaluation_json(found: Evaluated) -> dict[str, Any]:
    """The same for programs."""
    scored = found.scored
    measured = measures(scored)
    one, *_ = pairs(scored) if len(scored.candidates) > 1 else [("", "")]
    changed = _changed(measured, scored)
    return {
        "name": found.name,
        "data": found.rows,
        "rows": len(scored.rows),
        "answers": sum(row.answered for row in scored.rows),
        "max_new_tokens": scored.most_tokens,
        "candidates": [_candidate_json(each, measured, found) for each in scored.candidates],
        "compared": [
            {"one": a, "other": b, "measures": {m.objective.title: _comparison_json(m, a, b) for m in measured
                                                if a in m.values and b in m.values}}
            for a, b in pairs(scored)
        ],
        "judge": None if found.judged is None else _judge_json(found.judged),
        "changed": {"one": one[0], "other": one[1],
                    **{key: [_example_json(at, scored) for at in rows]
                       for key, rows in zip(("better", "worse"), changed.values(), strict=True)}} if changed else None,
        "answered": [_example_json(at, scored) for at, row in enumerate(scored.rows) if row.answered],
        "notes": list(found.notes),
    }  # fmt: skip


def judged(found: Judged) -> str:
    """What the judge said, in a sentence."""
    counts = [sum(verdict == wanted for verdict in found.verdicts) for wanted in (1, -1, 0)]
    told = (f"{clean(found.judge)}, in both orders: {found.one} better in {counts[0]} of {found.asked}, {found.other} "
            f"in {counts[1]}, equal in {counts[2]}")  # fmt: skip
    told += f" ({found.swayed} of these by the order alone)" if found.swayed else ""
    return f"{told}; asked no further: {clean(found.failed)}" if found.failed else told


def _losses(objective: Objective, targets: Sequence[int], sums: dict[str, list[float]]) -> Measure:
    places = [at for at, number in enumerate(targets) if number]
    values = {name: [of[at] / targets[at] for at in places] for name, of in sums.items()}
    return Measure(objective, values, Rows([targets[at] for at in places]), places)


def _identifier(name: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:64]
    return kept if kept[:1].isalpha() else f"m_{kept}"[:64]


def _table(measured: Sequence[Measure], found: Evaluated, width: int) -> list[Line]:
    names = [one.name for one in found.scored.candidates]
    heads = [f"{name} (trial {found.trials[name]})" if found.trials.get(name) is not None and
             not name.startswith("trial") else name for name in names]  # fmt: skip
    rows = [("", *heads)]
    for measure in measured:
        estimates = {name: measure.rows.mean(values) for name, values in measure.values.items()}
        rows.append((measure.objective.title, *(_shown(estimates.get(name)) for name in names)))
        if measure.objective is LOSS:
            rows.append(("perplexity", *(_shown(_exp(estimates[name])) for name in names)))
    cells = [tuple(shorten(clean(cell), _CELL) for cell in row) for row in rows]
    widths = [max(width_of(row[column]) for row in cells) for column in range(len(names) + 1)]
    told = ["  ".join(map(pad, row, widths)).rstrip() for row in cells]
    out = [crop(line((row, "head" if at == 0 else "")), width) for at, row in enumerate(told)]
    total, answers = len(found.scored.rows), sum(row.answered for row in found.scored.rows)
    rest = f", answers to {answers}" if answers else ""
    said = f"{words.plural(total, 'row')}{rest}; in brackets 95% intervals over rows; {clean(found.rows)}"
    return [*out, line((shorten(said, width), "dim"))]


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "missing"
    if estimate.low is None or estimate.high is None:
        return words.measured(estimate.value)
    return f"{words.measured(estimate.value)} ({words.measured(estimate.low)} to {words.measured(estimate.high)})"


def _exp(estimate: Estimate) -> Estimate:
    def up(x: float | None) -> float | None:
        return None if x is None else math.exp(min(x, 700.0))

    return Estimate(math.exp(min(estimate.value, 700.0)), up(estimate.low), up(estimate.high))


def _compared(measured: Sequence[Measure], one: str, other: str) -> Iterator[str]:
    told = []
    for measure in measured:
        if one not in measure.values or other not in measure.values:
            continue
        compared = measure.rows.compare(measure.values[one], measure.values[other])
        better, worse = _better_and_worse(measure.objective, compared)
        gap = compared.difference
        size = words.measured(abs(gap.value))
        if not better + worse:
            told.append(f"{measure.objective.title} the same in every row")
            continue
        if not gap.excludes_zero:
            many = words.plural(len(measure.places), "row")
            told.append(f"{measure.objective.title} differs by {size}, which {many} cannot tell from none "
                        f"({better} better, {worse} worse)")  # fmt: skip
            continue
        ends = sorted((abs(gap.low or 0.0), abs(gap.high or 0.0)))
        which = "better" if measure.objective.cost(gap.value) < 0 else "worse"
        told.append(f"{measure.objective.title} {which} by {size} ({words.measured(ends[0])} to "
                    f"{words.measured(ends[1])}; {better} rows better, {worse} worse)")  # fmt: skip
    if told:
        yield f"{one} beside {other}: {'; '.join(told)}"


def _better_and_worse(objective: Objective, compared: Comparison) -> tuple[int, int]:
    return (compared.lower, compared.higher) if objective.falls else (compared.higher, compared.lower)


def _missing(scored: Scored) -> Iterator[str]:
    for one in scored.candidates:
        for name, why in one.missing.items():
            yield f"{name} of {one.name} is missing: {why}"


def _cut(scored: Scored) -> Iterator[str]:
    answers = sum(row.answered for row in scored.rows)
    cut = [f"{one.cut} of {one.name}" for one in scored.candidates if one.cut]
    if cut:
        limit = f"the limit of {scored.most_tokens} tokens"
        yield f"of {answers} answers each, {words.listing(cut)} are cut at {limit}; --max-new-tokens sets another"


def _changed(measured: Sequence[Measure], scored: Scored) -> dict[str, list[int]]:
    """By title: rows whose answers became better, and worse, by the first metric of answers and then by the loss."""
    if len(scored.candidates) < 2 or not any(row.answered for row in scored.rows):
        return {}
    one, other = (candidate.name for candidate in pair(scored))
    loss = measured[0]
    gains = {at: loss.values[other][n] - loss.values[one][n] for n, at in enumerate(loss.places)}
    both = [m for m in measured[1:] if m.objective is not ALSO and {one, other} <= m.values.keys()]
    metric = next((m for m in both if m.values[one] != m.values[other]), None)
    first = {}
    if metric is not None:
        for n, at in enumerate(metric.places):
            first[at] = -metric.objective.cost(metric.values[one][n]) + metric.objective.cost(metric.values[other][n])
    order = sorted((at for at, row in enumerate(scored.rows) if row.answered),
                   key=lambda at: (first.get(at, 0.0), gains.get(at, 0.0)))  # fmt: skip
    differ = [at for at in order if _answer(scored, one, at) != _answer(scored, other, at)]
    up = [at for at in reversed(differ) if (first.get(at, 0.0), gains.get(at, 0.0)) > (0.0, 0.0)]
    down = [at for at in differ if (first.get(at, 0.0), gains.get(at, 0.0)) < (0.0, 0.0)]
    by = metric.objective.title if metric is not None else "loss"
    title = f"answers of {one} that are {{}} than those of {other}, most first (by {by})"
    return {title.format("better"): up[:_EXAMPLES], title.format("worse"): down[:_EXAMPLES]}


def _answer(scored: Scored, name: str, at: int) -> str | None:
    return next(one.answers[at] for one in scored.candidates if one.name == name)


def _examples(rows: Sequence[int], scored: Scored, width: int) -> Iterator[Line]:
    side = max(len(one.name) for one in scored.candidates)
    side = max(side, len("reference"))
    for at in rows:
        row = scored.rows[at]
        yield line((shorten(f"  {clean(row.where)}", width), "dim"))
        texts = [("prompt", row.prompt[-_SHOWN:]), ("reference", row.reference[:_SHOWN])]
        texts += [(one.name, (one.answers[at] or "")[:_SHOWN]) for one in scored.candidates]
        for name, text in texts:
            yield crop(line(f"    {name:<{side}}  {clean(text) or '(nothing)'}"), width)


def _candidate_json(one: Scores, measured: Sequence[Measure], found: Evaluated) -> dict[str, Any]:
    estimates = {m.objective.title: m.rows.mean(m.values[one.name]) for m in measured if one.name in m.values}
    return {
        "name": one.name,
        "trial": found.trials.get(one.name),
        "measures": {name: asdict(estimate) for name, estimate in estimates.items()},
        "perplexity": asdict(_exp(estimates[LOSS.title])),
        "missing": dict(one.missing),
        "cut_answers": one.cut,
        "generated_tokens": one.tokens,
        "generating_s": one.seconds,
    }


def _comparison_json(measure: Measure, one: str, other: str) -> dict[str, Any]:
    compared = measure.rows.compare(measure.values[one], measure.values[other])
    better, worse = _better_and_worse(measure.objective, compared)
    return {**asdict(compared.difference), "rows_better": better, "rows_worse": worse, "rows_equal": compared.equal}


def _judge_json(found: Judged) -> dict[str, Any]:
    return {
        "judge": found.judge,
        "one": found.one,
        "other": found.other,
        "asked": found.asked,
        "one_better": sum(verdict == 1 for verdict in found.verdicts),
        "other_better": sum(verdict == -1 for verdict in found.verdicts),
        "equal": sum(verdict == 0 for verdict in found.verdicts),
        "by_order": found.swayed,
        "failed": found.failed or None,
    }


def _example_json(at: int, scored: Scored) -> dict[str, Any]:
    row = scored.rows[at]
    values = {one.name: {name: of[at] for name, of in one.metrics.items()} for one in scored.candidates}
    return {
        "row": row.where,
        "prompt": row.prompt,
        "reference": row.reference,
        "answers": {one.name: one.answers[at] for one in scored.candidates},
        "metrics": values,
    }
