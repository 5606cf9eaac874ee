"""Writes what a search is doing as lines, for logs and pipes: no colour, nothing redrawn.

Their number is bounded. A trial has a line for its first evaluation, one for each time that its steps have multiplied
since the line before, and one for its ending; in a short search also two for its start. `verbose` writes them all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import IO

from tuner.report import formatting as words
from tuner.report import standing
from tuner.report.counter import Paced
from tuner.report.lines import clean, for_stream, line, plain
from tuner.report.machine import dump, timing
from tuner.report.table import label_of, mark_of
from tuner.report.view import View
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord, TrialRecord

EVALUATION_EVERY = 15.0
"""Seconds between two evaluation lines of one trial: 16 trials of 70 s stay under a hundred lines."""
LONG = 32
"""A search of more trials has no lines for their starts."""
GROWTH, GROWTH_IF_LONG = 2.0, 3.0
"""The factor by which a trial's steps have grown since its last line: 3 is that of the default rungs."""


class PlainView(View):
    """A listener that writes lines, and a context manager like `LiveView`, in whose place it is used.

    record: of the earlier sessions, for a search that is resumed. verbose: write a line for every event.
    """

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        stream: IO[str] | None = None,
        record: SearchRecord | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(labels, stream, record)
        self._verbose = verbose
        self._paced = Paced()
        self._told: dict[int, tuple[float, int]] = {}
        """Time and step of each trial's last evaluation line."""

    def __call__(self, event: Event) -> None:
        with self._lock:
            for text in self.lines(event):
                self._stream.write(plain([for_stream(line(text), self._stream)]))
                self._stream.flush()

    def say(self, doing: str) -> None:
        """Shows what happens now, for what is no event."""
        if not doing:
            return
        with self._lock:
            self._stream.write(f"{doing}\n")
            self._stream.flush()

    def count(self, doing: str) -> None:
        """Shows how far something is that takes long, in a few lines."""
        if doing and self._paced.is_due(time.monotonic()):
            self.say(clean(doing))

    def __enter__(self) -> PlainView:
        self.say("starting Ray, preparing the base and the data")
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def lines(self, event: Event) -> list[str]:
        """Folds an event into the record, and returns the lines to show for it."""
        record = self._record
        before = record.best
        known = set(record.notes)
        record.apply(event)
        said = self._said(event)
        if event.event in (Kind.PREPARED, Kind.NOTE):
            said += [f"note: {clean(note)}" for note in record.notes if note not in known]
        best = record.best
        if event.event is Kind.ENDED and best is not None and (before is None or best.number != before.number):
            said.append(f"best so far: {standing.against_recipe(record, best)}")
        return [f"[{words.timestamp(record.wall_s)}] {text}" for text in said]

    @property
    def _is_long(self) -> bool:
        return not self._verbose and self._record.num_trials > LONG

    def _is_due(self, event: Event, trial: TrialRecord) -> bool:
        """Whether the last evaluation of a trial gets a line."""
        if self._verbose or not trial.points[-1].is_finite:
            return True
        when, step = self._told.get(trial.number, (-EVALUATION_EVERY, 0))
        grown = trial.step >= step * (GROWTH_IF_LONG if self._is_long else GROWTH)
        return grown and event.time - when >= EVALUATION_EVERY

    def _said(self, event: Event) -> list[str]:
        record = self._record
        match event.event:
            case Kind.SEARCH:
                return [self._opening()]
            case Kind.PREPARED:
                facts = facts_text(record.facts)
                return [f"prepared: {facts}" if facts else "prepared"]
            case Kind.PAUSED:
                return [f"paused {clean(record.paused)}: trials wait at their next evaluation"]
            case Kind.RESUMED:
                return ["goes on"]
            case Kind.STOPPED:
                if record.spent:
                    return [f"stopping: {clean(record.spent)}, and what it has found is kept"]
                return ["stopping: what runs is stopped, what it has found is kept"]
            case Kind.ADDED:
                return [f"added: {params_text(event.params or {}, self._labels)}"]
            case Kind.FINISHED:
                return [f"timing: {dump({'outcome': record.outcome, **timing(record), 'tokens': record.tokens})}"]
            case Kind.NOTE:
                return []
        trial = record.trials.get(-1 if event.number is None else event.number)
        if trial is None or (event.attempt or 1) != trial.attempt:
            return []
        return self._of_trial(event, trial)

    def _opening(self) -> str:
        record = self._record
        left = record.num_trials - record.num_ended
        again = f", {left} of them left" if record.sessions > 1 else ""
        on = f" on {words.plural(record.workers, 'worker')}" if record.workers else ""
        return f"search {record.name}: {words.plural(record.num_trials, 'trial')}{on}{again}"

    def _of_trial(self, event: Event, trial: TrialRecord) -> list[str]:
        record, name = self._record, f"trial {trial.number}"
        match event.event:
            case Kind.STARTED | Kind.SETUP if self._is_long and trial.attempt == 1:
                return []
            case Kind.STARTED:
                mark = mark_of(trial)
                attempt = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
                return [f"{name} started{mark}{attempt}: {params_text(trial.params, self._labels)}"]
            case Kind.SETUP:
                share = trainable_text(trial)
                again = f"goes on from step {trial.setup['resumed_step']}" if trial.setup.get("resumed_step") else ""
                return [f"{name}: {', '.join(filter(None, (share, again)))}"] if share or again else []
            case Kind.EVALUATION if trial.points:
                last = trial.points[-1]
                if not self._is_due(event, trial):
                    return []
                self._told[trial.number] = event.time, trial.step
                train = f", train loss {words.measured(last.train_loss)}" if last.train_loss is not None else ""
                told = metrics_text(record, last.metrics)
                return [f"{name}: step {standing.place(trial)}, {told}{train}"]
            case Kind.ENDED:
                told = f", {metrics_text(record, trial.best_metrics)}" if trial.is_usable else ""
                said = [f"{name} {clean(trial.ending)}{told}"]
                return said + ([f"  try: {clean(trial.remedy)}"] if trial.remedy else [])
            case Kind.INTERRUPTED:
                return [f"{name} interrupted: a resume goes on with it"]
            case Kind.PARKED:
                return [f"{name} parked at step {standing.place(trial)}: it goes on if the scheduler chooses it"]
            case Kind.RETRY:
                return [f"{name} is tried again: {clean(trial.retry)}"]
        return []


def metrics_text(record: SearchRecord, metrics: Mapping[str, float | None]) -> str:
    """ "eval_loss 4.312": the objectives of a search that were measured; the first one also if it was not."""
    shown = [o.name for o in record.objectives if o is record.objective or metrics.get(o.name) is not None]
    return ", ".join(f"{name} {words.measured(metrics.get(name))}" for name in shown)


def params_text(params: Mapping[str, object], labels: Mapping[str, str] | None = None) -> str:
    """ "lr 2.9e-3, r 64, batch 8"."""
    return ", ".join(f"{label_of(n, labels)} {clean(words.value(v))}" for n, v in params.items()) or "no parameters"


def trainable_text(trial: TrialRecord) -> str:
    """ "trainable 161.5M of 8.2B, 1.9% (language: attention 65.1M, mlp 96.4M)"; "" before the set-up."""
    trained, total = trial.setup.get("trainable_parameters"), trial.setup.get("total_parameters")
    if trained is None or not total:
        return ""
    parts = clean(str(trial.setup.get("parts") or ""))
    return f"trainable {words.trainable(trained, total)}" + (f" ({parts})" if parts else "")


def facts_text(facts: Mapping[str, object]) -> str:
    """What was prepared, in one line: the data sets if there are any ("train 3,912 rows, 402.1k tokens"), else all."""
    sets = {name: fact for name, fact in facts.items() if isinstance(fact, Mapping) and "rows" in fact}
    if sets:
        return "; ".join(f"{name} {_rows_text(fact)}" for name, fact in sets.items())
    plain_facts = {n: f for n, f in facts.items() if isinstance(f, str | int | float) and not isinstance(f, bool)}
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{fact:,}' if isinstance(fact, int) else clean(words.value(fact))}"
        for name, fact in plain_facts.items()
    )


def _rows_text(fact: Mapping[str, object]) -> str:
    rows, tokens, labels = fact.get("rows"), fact.get("tokens"), fact.get("label_tokens")
    text = f"{rows:,} rows" if isinstance(rows, int) else "rows"
    text += f", {words.count(tokens)} tokens" if isinstance(tokens, int) else ""
    return text + (f", {words.count(labels)} of them labels" if isinstance(labels, int) else "")
