"""How many lines a log gets, and what a program reads in them."""

from __future__ import annotations

import json
import re

import pytest

from tests.tuner.report import searches
from tuner.report.plain import LONG, PlainView
from tuner.report.trial import trial_report


def told(tape: searches.Tape, verbose: bool = False) -> list[str]:
    view = PlainView(searches.LABELS, verbose=verbose)
    return [text for event in tape.events for text in view.lines(event)]


def slow(num_trials: int) -> searches.Tape:
    """Trials that report every 20 s, a hundred times."""
    tape = searches.Tape(num_trials=num_trials)
    tape.prepared()
    for number in range(num_trials):
        tape.start(number, searches.RECIPE_PARAMS)
        tape.setup(number)
        for step in range(1, 101):
            tape.time += 20
            tape.evaluate(number, step, 5.0 - step / 100)
        tape.end(number, searches.BUDGET)
    tape.finish()
    return tape


def test_a_set_up_says_which_parts_are_trained() -> None:
    parts = "language: attention 4.2M, experts 61.0M; vision: none"
    tape = searches.Tape()
    tape.start(0, {})
    tape.setup(0, parts=f"{parts}\x1b[31m")
    assert any(line.endswith(f"trial 0: trainable 161.5M of 8.4B, 1.9% ({parts} [31m)") for line in told(tape))
    shown = "\n".join("".join(text for text, _ in row) for row in trial_report(tape.record, 0, 300))
    assert f"1.9% ({parts} [31m), accumulation 2" in shown


@pytest.mark.parametrize(("num_trials", "most"), [(4, 10), (LONG + 1, 6)])
def test_a_trial_has_a_bounded_number_of_lines(num_trials: int, most: int) -> None:
    lines = told(slow(num_trials))
    for number in range(num_trials):
        own = [line for line in lines if f"] trial {number}:" in line or f"] trial {number} " in line]
        assert len(own) <= most, own
        assert "completed: budget" in own[-1]
        assert any("step 1/100" in line for line in own)
    assert any(" started" in line for line in lines) == (num_trials <= LONG)


def test_verbose_has_a_line_for_every_event() -> None:
    tape = slow(LONG + 1)
    lines = told(tape, verbose=True)
    assert sum(": step " in line for line in lines) == 100 * (LONG + 1)
    assert sum(" started" in line for line in lines) == LONG + 1


def test_a_program_reads_the_time_of_a_line_and_what_the_search_took() -> None:
    tape = searches.finished()
    lines = told(tape)
    assert all(re.match(r"\[\d\d:\d\d:\d\d\] ", line) for line in lines)
    read = json.loads(lines[-1].partition("timing: ")[2])
    assert read == {
        "outcome": "failed", "wall_s": 61.0, "busy_s": 48.0, "trial_s": 48.0, "worker_s": 48.0, "gpu_s": 0.0,
        "held_gpu_s": 0.0,
        "tokens": tape.record.tokens,
    }  # fmt: skip
