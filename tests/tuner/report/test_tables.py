"""What must hold of every table and text, for any search and any terminal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tests.tuner.report import searches
from tuner.contract import Reason, Verdict
from tuner.report.curve import BLOCKS, NOT_FINITE, Scale, plot, sparkline
from tuner.report.lines import clean, for_stream, line, line_width, plain, shorten, width_of, wrap
from tuner.report.live import frame, select
from tuner.report.table import leaderboard, parameters
from tuner.report.trial import trial_report

SEARCHES = [
    searches.finished,
    searches.running,
    searches.recipe_wins,
    searches.halted,
    searches.unprepared,
    searches.interrupted,
    searches.parked,
    searches.hopeless,
    searches.recipe_stopped,
    searches.one_trial,
    searches.resumed,
    searches.broken,
    searches.many,
]


@pytest.mark.parametrize("make", SEARCHES)
def test_no_row_is_wider_than_the_terminal(make: Callable[[], searches.Tape]) -> None:
    record = make().record
    for width in (20, 33, 40, 60, 79, 80, 100, 132, 200):
        rows = leaderboard(record, width, labels=searches.LABELS)
        rows += frame(record, width, 24, elapsed=record.wall_s, labels=searches.LABELS)
        assert max((line_width(row) for row in rows), default=0) <= width


@pytest.mark.parametrize("make", SEARCHES)
def test_a_live_view_fits_its_height(make: Callable[[], searches.Tape]) -> None:
    tape = make()
    for upto in range(len(tape.events) + 1):
        record = searches.SearchRecord.fold(tape.events[:upto])
        for height in (3, 8, 24):
            assert len(frame(record, 80, height, elapsed=record.wall_s)) <= height


def test_running_trials_are_seen_first() -> None:
    record = searches.running().record
    assert {t.number for t in select(record, 5)} == {5, 6, 7, 1}
    assert [t.number for t in select(record, 100)] == [1, 3, 0, 5, 6, 7, 2, 4], "those that are out are below"


def test_the_trial_that_the_line_names_is_the_marked_one_and_the_first() -> None:
    """A running trial that is ahead of the completed ones: there is one best."""
    tape = searches.running()
    tape.evaluate(5, 33, 4.2)
    lines = frame(tape.record, 120, 24, elapsed=60.0, labels=searches.LABELS)
    assert "best   trial 5: 4.200, 13.8% below" in plain(lines)
    marked = [row for row in lines if any(style == "best" and text.strip() == "4.200" for text, style in row)]
    assert [plain([row]).split()[0] for row in marked] == ["5"]
    rows = plain(lines).splitlines()
    heading = next(i for i, row in enumerate(rows) if "eval loss" in row)
    assert rows[heading + 1].split()[0] == "5"
    assert sum(style == "best" for row in lines[heading + 2 :] for _, style in row) == 0


def test_a_trial_that_was_stopped_early_is_not_the_best_of_those_that_go_on() -> None:
    tape = searches.Tape()
    tape.trial(0, {"x": 0}, [5.0, 4.0], searches.rung(1, 4.0, 3.0))
    assert "trial 0" in plain(frame(tape.record, 80, 24, elapsed=5.0))
    tape.trial(1, {"x": 1}, [6.0, 5.0], None)
    assert "best   trial 1: 5.000" in plain(frame(tape.record, 80, 24, elapsed=5.0))


@pytest.mark.parametrize("width", [60, 80, 120, 160, 200])
def test_the_endings_keep_their_place_when_one_is_long(width: int) -> None:
    def place(message: str) -> int:
        tape = searches.finished()
        tape.trial(8, searches.params(1e-3, 8, "2r", 8), [7.0], Verdict(Reason.ERROR, message))
        rows = plain(leaderboard(tape.record, width, labels=searches.LABELS)).splitlines()
        assert any("failed: " in row or " error" in row for row in rows)
        return rows[0].index("ending")

    assert place("no") == place("RuntimeError: the device reports an error that nobody has seen before " * 4)


def test_parameters_left_out_are_named() -> None:
    text = plain(leaderboard(searches.many().record, 80, labels=searches.LABELS, rows=5))
    assert "not shown at this width: dropout, warmup, targets, schedule" in text
    assert "35 more trials" in text


def test_parameters_that_never_differ_are_left_out() -> None:
    tape = searches.Tape()
    for number in (0, 1):
        tape.trial(number, {"learning_rate": 1e-3 * (number + 1), "lora_r": 8}, [3.0, 2.0], searches.BUDGET)
    assert parameters(tape.record) == ["learning_rate"]


def test_a_parameter_under_a_condition_that_did_not_hold_is_a_dot() -> None:
    tape = searches.Tape()
    tape.trial(0, {"use_dora": False}, [3.0], searches.BUDGET)
    tape.trial(1, {"use_dora": True, "lora_r": 8}, [2.0], searches.BUDGET)
    rows = plain(leaderboard(tape.record, 100)).splitlines()
    assert rows[1].split()[:3] == ["1", "true", "8"]
    assert rows[2].split()[:3] == ["0", "false", "·"]


def test_one_diverged_trial_does_not_press_the_others_flat() -> None:
    tape = searches.Tape()
    curves = [[7.0, 5.0, 4.5, 4.2], [7.1, 6.0, 5.5, 5.2], [7.2, 6.4, 6.0, 5.8]]
    for number, losses in enumerate(curves):
        tape.trial(number, {"x": number}, losses, searches.BUDGET)
    quiet = [sparkline(t.points, Scale.of(tape.record)) for t in tape.record.trials.values()]
    tape.trial(3, {"x": 3}, [7.0, 5e6], Verdict(Reason.DIVERGED, "diverged"))
    loud = [sparkline(t.points, Scale.of(tape.record)) for t in tape.record.trials.values()]
    assert loud[:3] == quiet
    assert loud[3] == BLOCKS[-1] * 2


def test_curves_are_seven_wide_however_many_evaluations() -> None:
    tape = searches.Tape()
    tape.start(0, {})
    tape.setup(0)
    for step in range(1, 101):
        tape.evaluate(0, step, 5.0 - step / 50)
    tape.trial(1, {}, [5.0, math.nan], None)
    long, short = (sparkline(t.points, Scale.of(tape.record)) for t in tape.record.trials.values())
    assert len(long) == 7
    assert list(long) == sorted(long, reverse=True)
    assert short.endswith(NOT_FINITE)


def test_what_others_wrote_brings_no_newline_and_no_escape_code() -> None:
    record = searches.broken().record
    for rows in (leaderboard(record, 120), trial_report(record, 1, 100)):
        assert all("\x1b" not in text and "\n" not in text for row in rows for text, _ in row)
    assert clean("a\x1b[31m\n\tb") == "a [31m b"


def test_a_plot_survives_extremes() -> None:
    tape = searches.Tape()
    tape.trial(0, {}, [4.0], None)
    tape.trial(1, {}, [4.0, 4.0, 4.0], None)
    tape.trial(2, {}, [5.0, 4.0, 1e30, 3.0], None)
    tape.trial(3, {}, [math.nan, math.nan], None)
    trials = tape.record.trials
    assert plot(trials[3]) == []
    for number in (0, 1, 2):
        rows = plot(trials[number], width=40, recipe=trials[0])
        assert sum(text.count("●") for row in rows for text, _ in row) >= len(trials[number].curve)
        assert len({line_width(row) for row in rows[:9]}) == 1


def test_text_is_cut_and_wrapped_by_cells_and_not_by_characters() -> None:
    assert width_of("模型") == 4
    assert shorten("模型模型", 5) == "模型…"
    assert shorten("completed, budget", 11) == "completed…"
    assert wrap("one two three", 7) == ["one two", "three"]


def test_a_stream_that_cannot_write_blocks_gets_ascii() -> None:
    class Latin:
        encoding = "iso-8859-1"

    spans = for_stream(line("▁▇ ━─ …", "·"), Latin())  # type: ignore[arg-type]
    assert "".join(text for text, _ in spans) == "_* =- ~-"
