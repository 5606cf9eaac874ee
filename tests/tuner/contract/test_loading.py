"""Programs by name, and classes without the base class: what version 0.1 required is enough."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from tests.programs.quitter import Engine, Quitter
from tests.programs.toy import Toy, ToySettings
from tuner.contract import (
    EVAL_LOSS,
    Assignment,
    Group,
    InputError,
    PackedEngine,
    Preparation,
    Program,
    as_engine,
    as_program,
    load_program,
)

QUITTER, TOY = "tests.programs.quitter:Quitter", "tests.programs.toy:Toy"


@pytest.mark.parametrize("name", ["sft", "trainables.sft:SFT", TOY, QUITTER])
def test_a_program_is_found_by_name(name: str) -> None:
    program = load_program(name)
    assert issubclass(program, Program) and not program.__abstractmethods__
    assert load_program(name) is program


@pytest.mark.parametrize(
    "name", ["sfft", "no.such:Thing", "trainables.sft:Nothing", ":", "", "tuner.seeds:derive_seed"]
)
def test_a_program_that_is_not_there_is_the_users_error(name: str) -> None:
    with pytest.raises(InputError, match="no program"):
        load_program(name)


def test_a_class_without_the_base_has_every_default() -> None:
    assert not issubclass(Toy, Program)
    toy, settings = load_program(TOY), ToySettings()
    assert toy.OBJECTIVES == (EVAL_LOSS,)
    assert toy.packs(settings, {}) == f"the program {TOY} packs none"
    assert toy.spreads(settings, {}, Group(0, 2)) == f"the program {TOY} trains a trial in one process"
    assert toy.memory(settings, {}, 1) is None and toy.notes(settings, frozenset()) == ()
    assert not toy.unpinned(settings) and toy.made_of({}) == {}
    assert toy.with_params(settings, {"batch_size": 3}).train.batch_size == 3
    toy.warm()
    with pytest.raises(InputError, match="merges no adapters"):
        toy.merge({}, "adapter", "merged")


def test_its_own_hooks_stay(tmp_path: Path) -> None:
    quitter = load_program(QUITTER)
    assert quitter.packs(quitter.Settings(), {}) is None
    assert isinstance(quitter.pack({}, Preparation(str(tmp_path)), 2), Engine)
    assert quitter.__name__ == "Quitter" and quitter.__module__ == Quitter.__module__
    assert quitter.budget(quitter.Settings()).steps == 20


def test_it_is_evaluated_as_often_as_its_settings_say() -> None:
    """Version 0.1 read `train.eval_steps` of any program; one that has no such setting got a tenth of a trial."""
    toy, quitter = load_program(TOY), load_program(QUITTER)
    assert toy.eval_every(ToySettings.model_validate({"train": {"eval_steps": 5}})) == 5
    assert quitter.eval_every(quitter.Settings()) == 0.1


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, ""),
        ({"model": {"trust_remote_code": False}}, ""),
        ({"model": "a text", "train": 3}, ""),
        ({"model": {"trust_remote_code": True}}, "code that comes with the base"),
        ({"model": {"trust_remote_code": "yes", "model_name_or_path": "org/x"}}, "code that comes with the base"),
    ],
)
@pytest.mark.parametrize("name", [TOY, "sft"])
def test_code_of_others_is_told_whoever_wrote_the_settings(name: str, settings: dict[str, Any], code: str) -> None:
    """Version 0.1 asked for `--trust-remote-code` before a merge by any program with this setting."""
    told = load_program(name).foreign_code(settings)
    assert told.startswith(code) and bool(told) == bool(code)


class Cautious:
    """Calls the constructor of its base, as many classes do."""

    Settings, PARAMETERS, REFUSED = ToySettings, Toy.PARAMETERS, Toy.REFUSED
    budget, prepare = Toy.budget, Toy.prepare

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        super().__init__()
        self.settings = settings

    start, step, stop = Toy.start, Toy.step, Toy.stop


class Odd(ABC):
    """A class with an abstract method of its own."""

    @abstractmethod
    def step(self) -> None: ...


def test_a_constructor_that_calls_up_reaches_object() -> None:
    made = as_program(Cautious)({"a": 1}, Preparation(""))
    assert isinstance(made, Cautious) and isinstance(made, Program) and made.settings == {"a": 1}


def test_what_lacks_a_body_stays_abstract() -> None:
    assert {"step", "start", "stop", "budget", "prepare"} <= as_program(Odd).__abstractmethods__


@pytest.mark.parametrize("found", [3, None, print])
def test_what_is_no_class_is_no_program(found: Any) -> None:
    with pytest.raises(TypeError, match="is not a class"):
        as_program(found)


def test_the_class_and_its_trials_travel_to_workers(tmp_path: Path) -> None:
    """By name as a rule; but whatever holds one can be pickled the way Ray does it."""
    program = load_program(TOY)
    there = cloudpickle.loads(cloudpickle.dumps(program({"train": {}, "unprepared": ""}, Preparation(str(tmp_path)))))
    assert there.start(Assignment(0, {}, 0, (1.0,), str(tmp_path))).max_steps == 27 and there.step().done


def test_an_engine_that_cannot_refuse_refuses_nothing() -> None:
    plain = Engine()
    assert not isinstance(plain, PackedEngine)
    engine = as_engine(plain)
    assert isinstance(engine, PackedEngine) and engine.refuses({}) is None
    assert engine.busy and engine.choose(3, {}, measure=False).slots == 3
    assert engine.join(0, Assignment(0, {}, 0, (1.0,), "")).max_steps == 20
    engine.confirm(0)
    engine.leave(0)
    with pytest.raises(SystemExit):
        engine.advance(limit=1)
    assert as_engine(engine) is engine
