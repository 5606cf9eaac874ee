"""One table of misbehaviours, in every way in which a program is called: each has the same verdict in all.

Here the actors' classes run in this process; with real Ray the same table runs in tests/chaos/test_failures.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.programs.misbehaving import ENDS_AS
from tests.programs.toy import ToySettings, Train
from tuner import subprocess_call
from tuner.contract import Assignment, Evaluation, Fault, InputError, Preparation, Reason, Setup, Verdict
from tuner.failures import Failure
from tuner.scheduling.wire import REPORT, TRACEBACK
from tuner.worker.config import EngineReady, EngineRequest, ProgramSource, TrialConfig, WorkerConfig
from tuner.worker.engine_actor import EngineActor
from tuner.worker.process_group import Command, GroupConfig, _Member
from tuner.worker.solo_actor import SoloActor
from tuner.worker.trial_actor import TrialActor

PACK = "tests.programs.pack:Pack"
PREPARED = Preparation("")
WITHIN_S = 20
"""Seconds for an answer: a call that hangs then fails its test and does not stop the run."""


def settings(behaviour: str, **more: Any) -> dict[str, Any]:
    train = Train(max_steps=10, each={"0": behaviour})
    return ToySettings(train=train, **more).model_dump()


def assignment(folder: Path, number: int = 0) -> Assignment:
    place = folder / str(number)
    place.mkdir()
    return Assignment(number, {}, 0, (0.1, 0.2, 0.3, 1.0), str(place))


def answer(call: Callable[[], Any]) -> Any:
    """The answer to a call, within the time limit."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(WITHIN_S)


Ending = tuple[Verdict, str]


def alone(behaviour: str, folder: Path) -> Ending:
    worker = WorkerConfig(ProgramSource("tests.programs.toy:Toy"), settings(behaviour), PREPARED)
    trial = TrialConfig(assignment(folder), "trial 0", str(folder / "log"))
    actor = TrialActor(config={"worker": worker, "trial": trial})
    while True:
        result = actor.step()
        if isinstance(result[REPORT], Verdict):
            actor.cleanup()
            return result[REPORT], result[TRACEBACK]


def ending(step: Callable[[], Any]) -> Ending:
    """The ending of a trial whose reports come from `step`."""
    for _ in range(5):
        report = answer(step)
        if isinstance(report, Failure):
            return report.verdict, report.traceback
        assert isinstance(report, Evaluation)
    raise AssertionError("it did not end")


@contextmanager
def engine(given: dict[str, Any], slots: int = 2, program: str = PACK) -> Iterator[EngineActor]:
    made = EngineActor(ProgramSource(program), given, slots, 1, beside=False)
    yield made
    assert isinstance(answer(lambda: made.stop(0)), Failure | None), "its thread answers to the end"


def packed(behaviour: str, folder: Path) -> Ending:
    with engine(settings(behaviour)) as made:
        assert isinstance(answer(lambda: made.start(assignment(folder), PREPARED)), Setup)
        return ending(lambda: made.step(0))


def beside(behaviour: str, folder: Path) -> Ending:
    made = SoloActor(ProgramSource(PACK), settings(behaviour))
    assert isinstance(made.start(assignment(folder), PREPARED), Setup)
    found = ending(lambda: made.step(0))
    assert made.stop(0) is None and made.free() == 1
    return found


def in_a_group(behaviour: str, folder: Path) -> Ending:
    from tuner.contract import Group

    config = GroupConfig(
        ProgramSource("tests.programs.ungrouped:Ungrouped"), settings(behaviour), PREPARED, 1, "ddp", 1, 0, {}
    )
    member = _Member(config, Group())
    assert isinstance(member.answer(Command("start", assignment(folder), str(folder / "log"))), Setup)
    return ending(lambda: member.answer(Command("step")))


def while_an_engine_is_made(behaviour: str, folder: Path) -> Ending:
    with engine(settings("fine", in_pack=behaviour)) as made:
        begun = answer(lambda: made.begin(PREPARED, EngineRequest({}, measure=False, points=())))
        assert isinstance(begun, Failure)
        return begun.verdict, begun.traceback


def prepared(behaviour: str, folder: Path) -> Ending:
    arguments = [settings("fine", unprepared=behaviour), str(folder)]
    request = {"program": PACK, "method": "prepare", "arguments": arguments}
    try:
        subprocess_call.read(subprocess_call.carry_out(request), folder / "log")
    except InputError as error:  # what the user wrote is to be mended before there is any trial
        return Verdict(Reason.CONFIG, str(error)), "InputError"
    except Fault as fault:
        remedy = "" if fault.remedy == f"see {folder / 'log'}" else fault.remedy
        return replace(fault.verdict, remedy=remedy), str(fault.__cause__)
    raise AssertionError("it was prepared")


@pytest.mark.parametrize("way", [alone, packed, beside, in_a_group, while_an_engine_is_made, prepared])
@pytest.mark.parametrize("behaviour", ENDS_AS)
def test_a_misbehaviour_ends_alike_in_every_way(
    behaviour: str, way: Callable[[str, Path], Ending], tmp_path: Path
) -> None:
    verdict, traceback = way(behaviour, tmp_path)
    assert verdict == ENDS_AS[behaviour]
    assert traceback, "with what was raised"
    assert behaviour != "says_what_fits" or "the root of it" in traceback, "and what that was raised for"


@pytest.mark.parametrize("way", [alone, packed, beside, in_a_group])
@pytest.mark.parametrize("behaviour", ["unpicklable_report", "huge", "no_report", "nonsense", "text", "no_keys"])
def test_an_answer_that_cannot_travel_is_the_trials_error(
    behaviour: str, way: Callable[[str, Path], Ending], tmp_path: Path
) -> None:
    verdict, _ = way(behaviour, tmp_path)
    assert verdict.reason is Reason.ERROR and verdict.message.startswith(("TypeError: ", "ValueError: ")), verdict


def test_a_step_that_fails_is_one_of_all_trials_in_it_and_the_engine_goes_on(tmp_path: Path) -> None:
    with engine(settings("exits")) as made:
        for number in (0, 1):
            assert isinstance(answer(lambda number=number: made.start(assignment(tmp_path, number), PREPARED)), Setup)
        for number in (0, 1):
            assert ending(lambda number=number: made.step(number))[0] == ENDS_AS["exits"]
            assert answer(lambda number=number: made.stop(number)) is None
        assert made.free() == 2
        assert isinstance(answer(lambda: made.start(assignment(tmp_path, 2), PREPARED)), Setup)
        assert isinstance(answer(lambda: made.step(2)), Evaluation)


def test_what_cannot_be_imported_is_the_answer_to_all_who_come(tmp_path: Path) -> None:
    with engine(settings("fine"), program="tests.programs.pack:Warm") as made:
        for _ in range(2):
            begun = answer(lambda: made.begin(PREPARED, EngineRequest({}, measure=False, points=())))
            assert begun.verdict == ENDS_AS["import_error"] and "misbehave" in begun.traceback
        assert made.free() == 2, "a trial that comes is told, and does not wait for a slot"
        assert answer(lambda: made.start(assignment(tmp_path), PREPARED)).verdict == ENDS_AS["import_error"]


def test_an_engine_that_cannot_be_made_anew_is_tried_again_with_the_next_trial(tmp_path: Path) -> None:
    """One that took the place of one that died is made by the trial that comes first."""
    with engine(settings("fine", in_pack="raises")) as made:
        for number in (0, 1):
            came = answer(lambda number=number: made.start(assignment(tmp_path, number), PREPARED))
            assert came.verdict == ENDS_AS["raises"]
            assert made.free() == 2 and made.trials() == []


def test_a_slot_that_cannot_be_left_ends_the_engine_and_everybody_hears_of_it(tmp_path: Path) -> None:
    with engine(settings("sticks")) as made:
        for number in (0, 1):
            answer(lambda number=number: made.start(assignment(tmp_path, number), PREPARED))
            assert isinstance(answer(lambda number=number: made.step(number)), Evaluation)
        waiting: list[Any] = []
        neighbour = threading.Thread(target=lambda: waiting.append([made.step(1), made.step(1), made.step(1)]))
        answer(lambda: made.stop(0))
        neighbour.start()
        neighbour.join(WITHIN_S)
        late = answer(lambda: made.start(assignment(tmp_path, 2), PREPARED))
        assert waiting and "it does not let go" in waiting[0][-1].verdict.message
        assert late.verdict == waiting[0][-1].verdict


def test_an_engine_that_does_not_take_a_verdict_says_so_and_nobody_waits(tmp_path: Path) -> None:
    with engine(settings("not_confirmed")) as made:
        answer(lambda: made.start(assignment(tmp_path), PREPARED))
        assert ending(lambda: made.step(0))[0] == Verdict(Reason.ERROR, "LookupError: the slot is empty")


def test_an_engine_that_chooses_nonsense_is_the_answer(tmp_path: Path) -> None:
    with engine(settings("fine"), slots=1) as made:
        made._slots = None  # type: ignore[assignment]  what the toy then chooses is no number
        begun = answer(lambda: made.begin(PREPARED, EngineRequest({}, measure=False, points=())))
        assert isinstance(begun, Failure) and begun.verdict.reason is Reason.ERROR
        made._slots = 1
        assert answer(lambda: made.begin(PREPARED, EngineRequest({}, measure=False, points=()))) == EngineReady(
            1, 1, ""
        )
