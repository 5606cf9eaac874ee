from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from trainables.hf.stepper import CallbackStepper, Ended

HandOver = Callable[[int], bool]


def test_items_come_one_at_a_time_and_then_it_ends() -> None:
    log: list[str] = []

    def body(hand_over: HandOver) -> None:
        for number in range(2):
            log.append(f"made {number}")
            hand_over(number)

    turns = CallbackStepper(body)
    assert log == []
    assert turns.next() == 0 and log == ["made 0"]
    assert turns.next() == 1 and log == ["made 0", "made 1"]
    for _ in range(2):
        with pytest.raises(Ended):
            turns.next()


def test_close_ends_the_body_where_it_waits() -> None:
    left: list[int] = []

    def body(hand_over: HandOver) -> None:
        number = 0
        while hand_over(number):
            number += 1
        left.append(number)

    turns = CallbackStepper(body)
    turns.next()
    turns.next()
    turns.close()
    turns.close()
    assert left == [1]
    assert not any(thread.name == "trial" for thread in threading.enumerate())


def test_a_body_that_does_not_listen_is_told_again() -> None:
    def body(hand_over: HandOver) -> None:
        for number in range(3):
            hand_over(number)

    turns = CallbackStepper(body)
    turns.next()
    turns.close()
    with pytest.raises(Ended):
        turns.next()


def test_what_is_never_asked_for_never_runs() -> None:
    turns = CallbackStepper(lambda hand_over: pytest.fail("ran"))
    turns.close()


def test_an_error_comes_out_with_its_own_traceback() -> None:
    def deep() -> None:
        raise KeyError("here")

    def body(hand_over: HandOver) -> None:
        hand_over(1)
        deep()

    turns = CallbackStepper(body)
    assert turns.next() == 1
    with pytest.raises(KeyError, match="here") as caught:
        turns.next()
    assert caught.traceback[-1].name == "deep"


def test_an_error_on_the_way_out_is_dropped() -> None:
    def body(hand_over: HandOver) -> None:
        hand_over(1)
        raise RuntimeError("late")

    turns = CallbackStepper(body)
    turns.next()
    turns.close()
