"""The exact text of everything that is shown of a search."""

from __future__ import annotations

from tests.tuner.report import golden, searches
from tuner.report.lines import plain
from tuner.report.live import frame
from tuner.report.plain import PlainView
from tuner.report.summary import Place, summary
from tuner.report.trial import trial_report

KEPT = ("adapter (1.2 MB)", "train.yaml", "README.md")


def _summary(tape: searches.Tape, width: int, place: Place | None = None) -> str:
    record = tape.record
    place = place or Place(record.name, kept=KEPT if record.best else (), log=f"runs/{record.name}/logs/driver.log")
    return plain(summary(record, place, width, labels=searches.LABELS))


def test_summary() -> None:
    elsewhere = Place("first", storage_path="/data/my runs")
    narrow = Place("found", kept=KEPT, keys={"learning_rate": "train.learning_rate"})
    golden.check(
        "report_summary.txt",
        {
            "finished, 80 columns": _summary(searches.finished(), 80),
            "finished, 120 columns": _summary(searches.finished(), 120),
            "finished, 160 columns": _summary(searches.finished(), 160),
            "finished, 40 columns": _summary(searches.finished(), 40),
            "the recipe wins": _summary(searches.recipe_wins(), 100),
            "halted on a fault of the set-up": _summary(searches.halted(), 100),
            "halted before the first trial": _summary(searches.unprepared(), 100),
            "interrupted": _summary(searches.interrupted(), 100),
            "interrupted, runs elsewhere": _summary(searches.interrupted(), 100, elsewhere),
            "trials are parked": _summary(searches.parked(), 100),
            "nothing usable": _summary(searches.hopeless(), 100),
            "the recipe was stopped at a rung": _summary(searches.recipe_stopped(), 100),
            "one trial": _summary(searches.one_trial(), 100),
            "three seeds": _summary(searches.three_seeds(), 100),
            "forty trials, 110 columns": _summary(searches.many(), 110),
            "a range was too narrow": _summary(searches.found(), 100, narrow),
        },
    )


def _frame(tape: searches.Tape, events: int | None, width: int, height: int) -> str:
    record = searches.SearchRecord.fold(tape.events[:events])
    return plain(frame(record, width, height, elapsed=record.wall_s, labels=searches.LABELS))


def test_live_frames() -> None:
    tape = searches.running()
    golden.check(
        "report_live.txt",
        {
            "nothing known yet": _frame(tape, 0, 80, 24),
            "prepared": _frame(tape, 2, 80, 24),
            "the first trial": _frame(tape, 5, 80, 24),
            "at work, 80 columns": _frame(tape, None, 80, 24),
            "trials are parked": _frame(searches.parked(), -4, 100, 24),
            "at work, 160 columns": _frame(tape, None, 160, 24),
            "at work, 9 rows": _frame(tape, None, 100, 9),
            "forty trials, 24 rows": _frame(searches.many(), -40, 100, 24),
            "over": _frame(searches.finished(), None, 100, 24),
        },
    )


def test_plain_lines() -> None:
    def told(tape: searches.Tape) -> str:
        view = PlainView(searches.LABELS)
        return "".join(f"{text}\n" for event in tape.events for text in view.lines(event))

    golden.check(
        "report_plain.txt",
        {
            "finished": told(searches.finished()),
            "halted": told(searches.halted()),
            "interrupted and resumed": told(searches.resumed()),
            "parked and taken up": told(searches.parked()),
            "lost and tried again": told(searches.lost()),
        },
    )


def test_one_trial_in_full() -> None:
    record = searches.finished().record
    failed = searches.broken().record
    golden.check(
        "report_trial.txt",
        {
            "the winner": plain(trial_report(record, 1, 100, adapter="runs/first/best", log="runs/first/logs/1.log")),
            "the recipe, 60 columns": plain(trial_report(record, 0, 60)),
            "diverged at once": plain(trial_report(record, 5, 100)),
            "out of memory": plain(trial_report(record, 6, 100)),
            "an error with its traceback": plain(trial_report(failed, 1, 100)),
            "running": plain(trial_report(searches.running().record, 5, 100)),
        },
    )
