"""Writes the end of a search for a person: what happened, leaderboard, winner, what was kept, what to do next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.contract import Reason, Status
from tuner.report import formatting as words
from tuner.report import standing
from tuner.report.found import Found, found
from tuner.report.lines import Line, clean, crop, labelled, line, line_width, title
from tuner.report.table import leaderboard
from tuner.results.budget import more
from tuner.results.command_line import DEFAULT_STORAGE, command_line
from tuner.results.records import SearchRecord, TrialRecord

ROWS = 16
"""The most rows of the leaderboard at the end: all of a default search, and about a screen of a larger one."""


@dataclass(frozen=True)
class Place:
    """Where a run is, as the user would type it."""

    name: str
    """The run's name."""
    storage_path: str = DEFAULT_STORAGE
    """The folder of the runs, or its URI."""
    log: str = ""
    """The driver's log, which says more than the summary; "" without one."""
    kept: tuple[str, ...] = field(default_factory=tuple)
    """What `best/` holds, in words: ("adapter (1.2 MB)", "train.yaml", "README.md"); empty where there is none."""
    address: str = ""
    """The cluster that the search was submitted to and the run folder is on; "" for a run on this machine."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """By short name of a setting its dotted name: "train.learning_rate"; empty where the settings are not known."""

    @property
    def folder(self) -> str:
        """The run folder."""
        return f"{self.storage_path.rstrip('/') or '/'}/{self.name}" if self.storage_path != "/" else f"/{self.name}"

    def command(self, *words_: str) -> str:
        """A command line that finds this run from here."""
        return command_line(*words_, storage_path=self.storage_path, address=self.address)


def summary(
    record: SearchRecord, place: Place, width: int, *, labels: Mapping[str, str] | None = None, rows: int = ROWS
) -> list[Line]:
    """All of the text: headline, leaderboard, verdict. rows: the most rows of the leaderboard."""
    out = [headline(record, width)]
    out += leaderboard(record, width, labels=labels, rows=rows)
    out += verdict(record, place, width)
    return out


def headline(record: SearchRecord, width: int) -> Line:
    """ "first   16 of 16 trials · 2 workers · 1 min 12 s · 31% of the full budget's tokens"."""
    ended = record.num_ended
    facts = [f"{ended} of {words.plural(max(record.num_trials, ended), 'trial')}"]
    facts += [words.plural(record.workers, "worker")] if record.workers else []
    facts += [words.duration(record.wall_s)]
    share = record.budget_share
    facts += [f"{words.whole_percent(share)} of the full budget's tokens"] if share else []
    facts += [f"{record.sessions} sessions"] if record.sessions > 1 else []
    name = title(record.name or "search")
    while facts[1:] and line_width(line(name, " · ".join(facts))) > width:
        facts.pop()  # the last matters least
    return crop(line(name, " · ".join(facts)), width)


def said_of_nothing_left(name: str, record: SearchRecord) -> str:
    """What a resume of a search says that has no trial left to run."""
    if record.spent:
        return f"nothing is left to run in {name}: {clean(record.spent)}; --budget {more(record)} gives it more"
    ended = words.plural(record.num_ended, "trial")
    return f"nothing is left to run in {name}: {ended} ended; --num-trials gives it more"


def is_halted(record: SearchRecord) -> bool:
    """Whether a fault of the set-up ended the search: every trial would have met it."""
    return bool(record.halt_reason or record.halt_message)


def is_interrupted(record: SearchRecord) -> bool:
    """Whether a resume would have work to do. A search that its budget ended has none without more of it."""
    return (
        not is_halted(record)
        and not (record.spent and record.finished)
        and (
            not record.finished
            or any(t.interrupted or t.parked for t in record.trials.values())
            or record.outcome == "interrupted"
            or (record.outcome == "stopped" and len(record.ended) < record.num_trials)
        )
    )


def verdict(record: SearchRecord, place: Place, width: int) -> list[Line]:
    """The text below the leaderboard."""
    out: list[Line] = []
    if is_halted(record):
        out += _halted(record, width)
    best = standing.at_the_end(record)
    if best:
        out += labelled("best", best, width, "best")
    elif not is_halted(record) and record.ended:
        out += labelled(
            "best", f"none: no trial ended with {_a(record.objective.title)} that can be compared", width, "bad"
        )
    known = found(record) if best and record.finished and not is_interrupted(record) else None
    for at, text in enumerate(known.sentences if known else ()):
        out += labelled("" if at else "found", text, width)
    out += labelled("spent", _spent(record), width) if record.tokens or record.worker_s else []
    if best and place.kept:
        out += labelled("kept", f"{place.folder}/best: {', '.join(place.kept)}", width)
    out += _failed(record, place, width)
    if record.spent and record.finished:
        out += labelled("ended", _spent_budget(record), width, "warn")
        out.append(_command("", more_command(place, record)))
    if is_interrupted(record):
        left = max(0, record.num_trials - record.num_ended)
        out += labelled("left", f"{words.plural(left, 'trial')} not ended; to go on with them:", width, "warn")
        out.append(_command("", resume_command(place)))
    if best and place.address:
        out += labelled("kept", f"{place.folder}/best, on the cluster", width)
    if best:
        commands = next_commands(record, place, known)
        out += [_command("next" if i == 0 else "", command) for i, command in enumerate(commands)]
        out += [] if place.address else [_command("watch", place.command("dashboard", place.name))]
    elif is_halted(record) and (culprit := _culprit(record)):
        out.append(_command("next", place.command("show", place.name, str(culprit.number))))
    if place.log and not best:
        out += labelled("log", place.log, width)
    return out


def _spent(record: SearchRecord) -> str:
    """ "678.0k tokens, 1.3 worker-hours, 1.3 GPU-hours"; no GPUs where no worker held one; then what they cost."""
    told = [f"{words.count(record.tokens)} tokens"] if record.tokens else []
    told += [f"{words.hours(record.worker_s)} worker-hours"] if record.worker_s else []
    told += [f"{words.hours(record.gpu_s)} GPU-hours"] if 0 < record.gpu_s < math.inf else []
    told += [price] if (price := price_of(record)) else []
    return ", ".join(told)


def price_of(record: SearchRecord) -> str:
    """ "3.20 for 1.6 GPU-hours held at 2 each"; "" where no price is known, or no GPU was held."""
    price = record.price
    if price is None or not 0 < record.held_gpu_s < math.inf:
        return ""
    return f"{words.money(price)} for {words.hours(record.held_gpu_s)} GPU-hours held, at {record.price_per_gpu_hour:g}"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"


def _culprit(record: SearchRecord) -> TrialRecord | None:
    """The trial whose failure halted the search; None if the preparation failed."""
    reason = record.halt_reason
    return next((t for t in record.ended if str(t.reason) == reason and t.status is Status.FAILED), None)


def _halted(record: SearchRecord, width: int) -> list[Line]:
    """What is wrong with the set-up, the trial that found it, and the remedy."""
    culprit = _culprit(record)
    by = f"by trial {culprit.number}: " if culprit else ""
    message = record.halt_message or (culprit.message if culprit else "") or record.halt_reason
    remedy = record.halt_remedy or (culprit.remedy if culprit else "")
    out = labelled("halted", f"{by}a fault of the set-up, every trial would meet it", width, "bad")
    out += labelled("cause", clean(message), width)
    out += labelled("try", clean(remedy), width) if remedy else []
    return out


def _failed(record: SearchRecord, place: Place, width: int) -> list[Line]:
    failed = [t for t in record.ended if t.status is Status.FAILED]
    if not failed or (is_halted(record) and len(failed) == 1):
        return []
    kinds = Counter(str(t.reason).replace("_", " ") for t in failed)
    told = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    out = labelled("failed", f"{words.plural(len(failed), 'trial')}: {told}", width, "bad")
    for remedy in dict.fromkeys(clean(t.remedy) for t in failed if t.remedy and t.remedy != record.halt_remedy):
        out += labelled("try", remedy, width)
    seen = next((t for t in failed if t.reason in (Reason.ERROR, Reason.INFRASTRUCTURE)), failed[0])
    out.append(_command("", place.command("show", place.name, str(seen.number))))
    return out


def resume_command(place: Place) -> str:
    """The command that goes on with a search."""
    return place.command("submit" if place.address else "search", "--resume", place.name)


def _spent_budget(record: SearchRecord) -> str:
    """ "the budget of 20M tokens is spent; 9 of 16 trials had ended, 2 are cut off; with more of it they go on:"."""
    cut = len(record.cut_off) + len(record.parked)
    told = f"{clean(record.spent)}; {record.num_ended} of {words.plural(record.num_trials, 'trial')} ended"
    return told + (f", {cut} cut off" if cut else "") + "; to go on with more:"


def more_command(place: Place, record: SearchRecord) -> str:
    """The command that goes on with a search that its budget ended."""
    given = ("--budget", more(record)) if more(record) else ()
    return place.command("submit" if place.address else "search", "--resume", place.name, *given)


def next_commands(record: SearchRecord, place: Place, known: Found | None) -> list[str]:
    """What to run after a search with a winner. known: what it found, where that was looked for."""
    best = record.best
    if best is None:
        return []
    train = f"{place.folder}/best/train.yaml"
    commands = []
    for edge in (known.edges if known and place.kept else ())[:1]:
        key = place.keys.get(edge.name)
        if key is not None and edge.beyond is not None:
            way = "higher" if edge.side == "upper" else "lower"
            value = f"{key}={words.exact(edge.beyond)}"
            commands += [place.command("train", train, "--set", value, "--name", f"{place.name}-{way}")]
    pictured = len(record.trials) > 1
    commands += [place.command(*(("report", place.name) if pictured else ("show", place.name, str(best.number))))]
    if place.kept and standing.is_one_point(record):
        commands += [place.command("evaluate", place.name, "--data", "TEST")]
    if place.kept or place.address:
        commands += [place.command("export", place.name, "--to", "DIR")]
    if place.kept and not standing.is_one_point(record):
        commands += [place.command("train", place.name)]
    return commands


def _command(label: str, command: str) -> Line:
    """A command on a line of its own, never cut or wrapped, so that it can be copied."""
    return line((f"{label:<7}", "head"), (command, "code"))


def kept_in(best: Path) -> tuple[str, ...]:
    """What a `best/` folder holds, in words; empty while it is incomplete (`manifest.json` is written last)."""
    if not (best / "manifest.json").is_file():
        return ()
    weights = [p for p in best.iterdir() if p.name.startswith("adapter_model.")]
    adapter = f"adapter ({words.size(sum(p.lstat().st_size for p in weights))})" if weights else "adapter"
    return (adapter, *(name for name in ("train.yaml", "README.md") if (best / name).is_file()))
