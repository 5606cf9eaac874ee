"""What the report of a search says, in every format: made from the record and the settings in the run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tuner.contract import Reason
from tuner.report import formatting as words
from tuner.report import standing
from tuner.report.found import Found, found, noise
from tuner.report.lines import clean, shorten
from tuner.report.summary import Place, is_halted, is_interrupted, more_command, next_commands, price_of, resume_command
from tuner.report.table import ending, mark_of, parameters
from tuner.results.command_line import command_line
from tuner.results.records import SearchRecord, TrialRecord

MOST_WORDS = 60
"""The most words of the command that started the search."""
LONGEST = 200
"""Characters of one of them, and of a version."""


@dataclass(frozen=True)
class Spent:
    """What the trials with one ending took."""

    ending: str
    """The ending in words: "pruned: rung 1"."""
    state: str
    """The status that it stands for: "completed", "pruned" and so on; "" for what no trial has to show for."""
    trials: int
    """How many trials ended so."""
    set_up_s: float
    """Seconds of workers until the trials began to train."""
    trained_s: float
    """Seconds of workers from then on."""
    tokens: int
    """Training tokens."""

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.set_up_s + self.trained_s


@dataclass(frozen=True)
class RungFacts:
    """What happened at one rung."""

    number: int
    """From 1, the lowest first."""
    share: float
    """Its place as a share of the budget."""
    values: tuple[tuple[int, float, bool], ...]
    """By trial that was measured there: its number, its value, and whether it was stopped there."""

    @property
    def stopped(self) -> int:
        """How many trials were stopped there."""
        return sum(stopped for _, _, stopped in self.values)


@dataclass(frozen=True)
class Facts:
    """Everything that a report says."""

    record: SearchRecord
    place: Place
    """Where the run is, as the user would type it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Short headings by parameter name."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the run folder, whoever wrote them."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """The last evaluation on test rows, whoever wrote it; empty where there is none."""

    @cached_property
    def found(self) -> Found:
        """Which parameters mattered."""
        return found(self.record)

    @cached_property
    def names(self) -> list[str]:
        """The searched parameters that differ between trials."""
        return parameters(self.record)

    @property
    def headline(self) -> list[str]:
        """How far the search is and what it took, in words."""
        record = self.record
        ended = record.num_ended
        told = [f"{ended} of {words.plural(max(record.num_trials, ended), 'trial')}"]
        told += [words.plural(record.workers, "worker")] if record.workers else []
        told += [words.duration(record.wall_s)]
        told += [f"{record.sessions} sessions"] if record.sessions > 1 else []
        state = "halted" if is_halted(record) else "not ended" if is_interrupted(record) else clean(record.spent)
        return [*([state] if state else []), *told]

    @property
    def best(self) -> str:
        """The winner beside the recipe and the second."""
        if is_halted(self.record):
            return f"none: {clean(self.record.halt_message or self.record.halt_reason)}"
        title = self.record.objective.title
        return standing.at_the_end(self.record) or f"none yet: no trial ended with a {title} that can be compared"

    @property
    def noise(self) -> str:
        """How much equal settings differ, in words."""
        measured = noise(self.record)
        if measured is None:
            return "not measured: no settings ran to their end twice"
        share, trials = measured
        return f"equal settings differ by {words.percent(share)} (standard deviation, {trials} trials)"

    @property
    def cost(self) -> dict[str, str]:
        """What the search took, in words."""
        record = self.record
        share = record.budget_share
        told = {"time": words.duration(record.wall_s)}
        if record.tokens:
            of_all = f", {words.whole_percent(share)} of the full budget's" if share else ""
            told["tokens"] = f"{words.count(record.tokens)}{of_all}"
        if record.worker_s:
            told["worker-hours"] = words.hours(record.worker_s)
        if 0 < record.gpu_s < math.inf:
            told["GPU-hours"] = words.hours(record.gpu_s)
        if price := price_of(record):
            told["price"] = price
        return told

    @property
    def next(self) -> list[str]:
        """What to run next."""
        if is_interrupted(self.record):
            return [resume_command(self.place)]
        if self.record.spent and self.record.best is None:
            return [more_command(self.place, self.record)]
        commands = next_commands(self.record, self.place, self.found)
        own = self.place.command("report", self.place.name)
        seeds = [self._another_seed] if self.place.kept and noise(self.record) is None else []
        rest = [*seeds, *(command for command in commands if command != own)]
        return rest or [self.place.command("status", self.place.name)]

    @property
    def reproduce(self) -> dict[str, str]:
        """What to run to get the same again, by what it is."""
        told = {}
        if (started := self._started_by) is not None:
            told["the search"] = started
        if self.place.kept:
            told["the winner"] = command_line("train", f"{self.place.folder}/best/train.yaml")
            told["the winner with another seed"] = self._another_seed
        told["this page"] = self.place.command("report", self.place.name)
        return told

    @property
    def versions(self) -> dict[str, str]:
        """The versions that it ran with, by name."""
        return _texts(_mapping(self.resolved.get("about")).get("versions"))

    @property
    def _another_seed(self) -> str:
        """The command that trains the winner with another seed, which shows how much of the gain is noise."""
        place = self.place
        return place.command(
            "train", f"{place.folder}/best/train.yaml", "--seed", "1", "--name", f"{place.name}-seed-1"
        )

    @property
    def _started_by(self) -> str | None:
        """The command line that started the search; None where the folder has none that is one of ours."""
        command = _mapping(self.resolved.get("about")).get("command")
        if not isinstance(command, list) or not 3 < len(command) <= MOST_WORDS:
            return None
        if command[1:3] != ["-m", "tuner"] or command[3] not in ("search", "train", "submit"):
            return None
        if not all(isinstance(word, str) and word.isprintable() and len(word) <= LONGEST for word in command):
            return None
        return command_line(*command[3:])

    @cached_property
    def spending(self) -> list[Spent]:
        """Where the workers' time went: by ending, the longest first, then what no ended trial accounts for."""
        record = self.record
        workers = record.worker_s / record.trial_s if record.trial_s else 0.0  # a packed trial has a part of a worker
        groups: dict[str, list[TrialRecord]] = {}
        for trial in record.trials.values():
            groups.setdefault(ending_of(trial), []).append(trial)
        out = []
        for name, trials in groups.items():
            whole = [trial.seconds(record.updated or 0.0) for trial in trials]
            began = [
                min(seconds, max(0.0, trial.set_up - trial.started)) if trial.set_up and trial.started else seconds
                for trial, seconds in zip(trials, whole, strict=True)
            ]
            set_up = sum(began) * workers
            tokens = sum(trial.tokens for trial in trials)
            out.append(Spent(name, trials[0].state, len(trials), set_up, sum(whole) * workers - set_up, tokens))
        out.sort(key=lambda one: -one.seconds)
        lost = record.worker_s - sum(one.seconds for one in out)
        if lost > max(1.0, record.worker_s / 100):
            out.append(Spent("attempts that were lost", "", 0, 0.0, lost, 0))
        return out

    @cached_property
    def rungs(self) -> list[RungFacts]:
        """What happened at each rung; empty where the search had none."""
        shares = self.record.ladder.get("rungs")
        if not isinstance(shares, list):
            return []
        out = []
        for number, share in enumerate(shares[:32], 1):
            if not isinstance(share, int | float) or not 0 < share < 1:
                return []
            reached = [(trial, at) for trial in self.record.trials.values() if (at := _at(trial, share)) is not None]
            values = tuple(
                (trial.number, value, trial.reason is Reason.RUNG and at == len(trial.points) - 1)
                for trial, at in reached
                if (value := trial.points[at].value) is not None and math.isfinite(value)
            )
            out.append(RungFacts(number, float(share), values))
        return out


def ending_of(trial: TrialRecord) -> str:
    """How a trial ended, short and without its mark: "pruned: rung 1"."""
    if not trial.has_ended:
        return trial.state
    return shorten(ending(trial, 1).removesuffix(mark_of(trial)), 60)


def state_of(trial: TrialRecord) -> str:
    """The kind of its ending, by which pictures colour it: its status, but "diverged" where it was not only behind."""
    return "diverged" if trial.reason is Reason.DIVERGED else trial.state


def steps_of(record: SearchRecord) -> int | None:
    """The steps of a trial's budget, where all trials have the same; else None."""
    steps = {trial.max_steps for trial in record.trials.values() if trial.max_steps}
    return steps.pop() if len(steps) == 1 else None


def report_json(facts: Facts) -> dict[str, Any]:
    """What the report adds to `machine.status_json`."""
    importance = facts.found.importances
    measured = noise(facts.record)
    return {
        "said": {"best": facts.best, "noise": facts.noise, "found": facts.found.sentences},
        "noise": {"share": measured[0], "trials": measured[1]} if measured else None,
        "importances": [
            {"name": one.name, "share": one.share, "low": one.low, "high": one.high, "chance": one.chance,
             "matters": one.matters}
            for one in (importance.parameters if importance else ())
        ],
        "edges": [
            {"name": edge.name, "side": edge.side, "bound": edge.bound, "beyond": edge.beyond}
            for edge in facts.found.edges
        ],
        "spending": [
            {"ending": one.ending, "trials": one.trials, "set_up_s": round(one.set_up_s, 3),
             "trained_s": round(one.trained_s, 3), "tokens": one.tokens}
            for one in facts.spending
        ],
        "rungs": [
            {"number": rung.number, "share": rung.share, "compared": len(rung.values), "stopped": rung.stopped}
            for rung in facts.rungs
        ],
        "next": facts.next,
        "reproduce": facts.reproduce,
    }  # fmt: skip


def _at(trial: TrialRecord, share: float) -> int | None:
    """The place of the evaluation of a trial at a share of its budget; None where it has none."""
    if not trial.max_steps:
        return None
    near = max(0.01, 1 / trial.max_steps)
    apart = [abs(point.step / trial.max_steps - share) for point in trial.points]
    at = min(range(len(apart)), key=apart.__getitem__, default=None)
    return at if at is not None and apart[at] <= near else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> dict[str, str]:
    told = [(name, text) for name, text in _mapping(value).items() if isinstance(text, str)]
    return {shorten(clean(name), 40): shorten(clean(text), LONGEST) for name, text in told[:MOST_WORDS]}


def share_of(trials: Sequence[Spent], one: Spent) -> float:
    """The share of the workers' time."""
    whole = sum(other.seconds for other in trials)
    return one.seconds / whole if whole else 0.0
