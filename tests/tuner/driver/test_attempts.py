"""The states of an attempt: every transition there is, and every one that is refused."""

from __future__ import annotations

from itertools import product

import pytest

from tuner.contract import Fit
from tuner.driver.attempts import COUNTS, Attempt, Attempts, State

RUNNING, DRAINING, HUNG, DRAINED, STOPPED, OVER = State
ALLOWED = {
    (RUNNING, DRAINING), (RUNNING, HUNG), (RUNNING, DRAINED), (RUNNING, STOPPED), (RUNNING, OVER),
    (DRAINING, HUNG), (DRAINING, DRAINED), (DRAINING, STOPPED), (DRAINING, OVER),
    (HUNG, DRAINED), (HUNG, STOPPED), (HUNG, OVER),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), sorted(product(State, State)))
def test_an_attempt_goes_from_state_to_state(before: State, after: State) -> None:
    attempt = Attempt("a", 7, 2, {}, before)
    if (before, after) in ALLOWED:
        attempt.move(after)
        assert attempt.state is after
    else:
        with pytest.raises(ValueError, match=rf"attempt 2 at trial 7 is {before}, and cannot be {after}"):
            attempt.move(after)
        assert attempt.state is before


@pytest.mark.parametrize("state", State)
def test_an_attempt_counts_until_it_is_over(state: State) -> None:
    """What counts can end in every way; what does not count has come to its end."""
    attempts = Attempts()
    begun = attempts.begin("a", 0, 1, {})
    begun.state = state
    followed = {after for before, after in ALLOWED if before is state}
    assert begun.counts == (state in COUNTS) == ({DRAINED, STOPPED, OVER} <= followed)
    assert bool(followed) == begun.counts
    assert attempts.counting("a") is (begun if begun.counts else None)
    assert attempts.of(0) is attempts.counting("a")
    assert attempts["a"] is begun and attempts.state("a") is state


def test_one_attempt_at_a_trial_counts() -> None:
    attempts = Attempts()
    first = attempts.begin("a", 0, 1, {})
    assert first.state is RUNNING
    with pytest.raises(ValueError, match="attempt 1 at trial 0 is running, and 2 cannot begin"):
        attempts.begin("b", 0, 2, {})
    assert attempts.state("b") is None and attempts.counting("b") is None and attempts.of(1) is None
    first.move(DRAINED)
    second = attempts.begin("b", 0, 2, {})
    assert attempts.of(0) is second and attempts.counting("a") is None
    assert attempts["a"].state is DRAINED, "its worker is still to be ended"


def test_an_id_of_rays_is_one_attempts() -> None:
    attempts = Attempts()
    attempts.begin("a", 0, 1, {}).move(OVER)
    with pytest.raises(ValueError, match="a has begun already"):
        attempts.begin("a", 1, 1, {})


def test_an_attempt_keeps_what_it_was_told() -> None:
    """What is learned of a device while it runs is for the next one."""
    known = {"x": Fit(8)}
    begun = Attempts().begin("a", 0, 1, known)
    known["x"] = Fit(4)
    assert begun.fits == {"x": Fit(8)}
