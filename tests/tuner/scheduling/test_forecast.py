"""What a search is foreseen to take, beside what searches took."""

from __future__ import annotations

import pytest

from tests.programs import parking
from tuner.config import Asha, NoScheduler
from tuner.contract import EVAL_LOSS, Objective
from tuner.scheduling.algorithms import ALGORITHMS
from tuner.scheduling.forecast import LONGEST, Pace, forecast
from tuner.scheduling.ladder import Ladder, make_ladder


def ladder(factor: float | None = 3) -> Ladder:
    """That of the embedded default: rungs at 6, 18 and 54 of 100."""
    return make_ladder(100, grace_period=None, reduction_factor=factor, warmup=0.03, eval_every=0.1)


def test_without_rungs_every_trial_runs_to_its_end() -> None:
    seen = forecast(NoScheduler(), ladder(None), EVAL_LOSS, 6, workers=2, costs=(2.0, 1.0), pace=Pace(1.0, 10.0, 0.5))
    assert seen.work.least == seen.work.likely == seen.work.most == pytest.approx(2 + 5)
    assert seen.evaluations == 6 * len(ladder(None).evaluate_at)
    # Five seconds of evaluations and one to begin: 26 for the recipe, 16 for each other; 26 + 16 + 16 beside 3 of 16
    assert seen.seconds.likely == pytest.approx(58)


def test_a_search_of_sixteen_takes_what_such_searches_took() -> None:
    """Searches of 16 trials took 31 to 42% of the steps of all; a mean over rungs would say 21%."""
    seen = forecast(Asha(), ladder(), EVAL_LOSS, 16, workers=2)
    assert 0.31 <= seen.work.likely / 16 <= 0.42
    assert seen.work.least < 0.9 * seen.work.likely and seen.work.most > 1.1 * seen.work.likely


def test_longer_searches_stop_more() -> None:
    shares = [forecast(Asha(), ladder(), EVAL_LOSS, n).work.likely / n for n in (1, 4, 16, 64, LONGEST, 10 * LONGEST)]
    assert shares[0] == 1.0 and shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(shares[-2])


def test_whether_a_value_rises_or_falls_is_nothing_to_it() -> None:
    rising = forecast(Asha(), ladder(), Objective("accuracy", direction="maximize"), 16)
    assert rising == forecast(Asha(), ladder(), EVAL_LOSS, 16)


def test_more_workers_end_sooner_and_not_more_than_so_many_times() -> None:
    one, four = (forecast(Asha(), ladder(), EVAL_LOSS, 16, workers=n, pace=Pace(0, 10, 0)) for n in (1, 4))
    assert one.seconds.likely == pytest.approx(10 * one.work.likely)
    assert four.seconds.likely >= 10 * four.work.likely / 4
    assert four.seconds.likely < one.seconds.likely / 2


def test_trials_that_are_parked_go_on_or_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "asha", parking.PARKING)
    seen = forecast(Asha(), ladder(), EVAL_LOSS, 8, workers=2)
    assert 1 < seen.work.likely < 8
