"""What Optuna is told, and that a resume tells it the same again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.programs.toy import Toy
from tuner.config import Grid, Random, Rungs, Tpe
from tuner.contract import Objective, Reason, Verdict
from tuner.results.records import Point, TrialRecord
from tuner.space import load_space
from tuner.study.samplers import startup_trials
from tuner.study.study import Study

SPACE = load_space(
    {
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
            "batch_size": {"type": "choice", "values": [8, 16]},
        }
    },
    Toy,
)
RECIPE = {"learning_rate": 1e-3, "batch_size": 8}


def make(path: Path, records: Any = (), **settings: Any) -> Study:
    arguments: dict[str, Any] = {
        "name": "first", "space": SPACE, "sampler": Tpe(), "num_trials": 16, "seed": 0, "recipe": RECIPE, **settings,
    }  # fmt: skip
    return Study(path, records=records, **arguments)


def opened(path: Path) -> JournalStorage:
    """The storage as another program opens it."""
    return JournalStorage(JournalFileBackend(str(path)))


def test_trial_0_is_the_recipe(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal")
    first, second = study.ask(), study.ask()
    assert first is not None and first.number == 0 and first.params == RECIPE
    assert second is not None and second.number == 1


def test_trials_of_one_point_are_asked_for_as_often_as_wanted(tmp_path: Path) -> None:
    """A space with nothing to search has one point, which several seeds train."""
    nothing = load_space({"parameters": {}}, Toy)
    study = make(tmp_path / "study.journal", space=nothing, recipe={}, repeats=True)
    asked = [study.ask() for _ in range(4)]
    assert [one and (one.number, one.params) for one in asked] == [(n, {}) for n in range(4)]
    assert not any(trial.user_attrs for trial in study.optuna.trials), "nobody has suggested them"
    once = make(tmp_path / "once.journal", space=nothing, recipe={})
    assert once.ask() is not None and once.ask() is None


def test_the_trials_after_it_are_the_points_that_the_space_names(tmp_path: Path) -> None:
    points = [{"learning_rate": 3e-3, "batch_size": 8}, {"learning_rate": 1e-3, "batch_size": 16}]
    study = make(tmp_path / "study.journal", first=points)
    asked = [study.ask() for _ in range(5)]
    assert [one.params for one in asked[:3]] == [RECIPE, *points]
    assert all(one.params not in (RECIPE, *points) for one in asked[3:])
    assert [one.number for one in asked] == list(range(5))

    records = [TrialRecord(0, params=RECIPE, distributions=dict(asked[0].distributions))]
    resumed = make(tmp_path / "again.journal", records=records, first=points)
    assert resumed.ask({"learning_rate": 0.5}, "user").params["learning_rate"] == 0.5, "somebody's own trial is not one"
    assert resumed.ask().params == points[1]


def test_points_that_the_space_names_count_as_points_of_a_finite_space(tmp_path: Path) -> None:
    space = load_space({"parameters": {"batch_size": {"type": "choice", "values": [8, 16, 32]}}}, Toy)
    study = make(tmp_path / "study.journal", space=space, recipe={"batch_size": 8}, first=[{"batch_size": 32}])
    assert [study.ask().params["batch_size"] for _ in range(3)] == [8, 32, 16] and study.ask() is None


def test_a_recipe_outside_the_space_leaves_the_sampler_untold(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal", recipe={"batch_size": 8})
    assert study.ask().params == {"batch_size": 8}


@pytest.mark.parametrize(
    ("reason", "best", "state", "value", "infeasible"),
    [
        (Reason.BUDGET, 2.5, "COMPLETE", 2.5, False),
        (Reason.FLATLINE, 2.5, "COMPLETE", 2.5, False),
        (Reason.RUNG, 2.5, "PRUNED", 2.6, False),
        (Reason.DIVERGED, 2.5, "PRUNED", 2.6, True),
        (Reason.OUT_OF_MEMORY, None, "PRUNED", 2.6, True),
        (Reason.ERROR, 2.5, "FAIL", None, False),
        (Reason.INFRASTRUCTURE, None, "FAIL", None, False),
        (Reason.USER, 2.5, "FAIL", None, False),
    ],
)
def test_every_ending_is_told_as_what_it_is(
    tmp_path: Path, reason: Reason, best: float | None, state: str, value: float | None, infeasible: bool
) -> None:
    study = make(tmp_path / "study.journal")
    number = study.ask().number
    for resource, loss in [(4, 2.5), (12, 2.6), (20, math.nan), (30, math.inf), (40, None)]:
        study.report(number, resource, loss)
    study.tell(number, Verdict(reason), best)
    trial = study.optuna.trials[number]
    assert trial.state.name == state and trial.value == value
    assert trial.intermediate_values == {4: 2.5, 12: 2.6}, "what is not finite is never stored"
    assert bool(trial.constraints) is infeasible


def test_a_study_of_a_number_that_rises_looks_for_high_values(tmp_path: Path) -> None:
    objective = Objective("accuracy", direction="maximize")
    study = make(tmp_path / "study.journal", objective=objective)
    records = []
    for values in ([0.25, 0.5], [0.5, 0.75], [0.75, 0.625]):
        suggestion = study.ask()
        records.append(record(suggestion.number, study, suggestion, Reason.BUDGET, values))
        records[-1].objective = objective
        study.tell(suggestion.number, Verdict(Reason.BUDGET), records[-1].best_value)
    assert [t.value for t in study.optuna.trials] == [0.5, 0.75, 0.75]
    assert study.optuna.best_trial.number == 1 and study.optuna.best_value == 0.75
    again = make(tmp_path / "study.journal", records, objective=objective)
    assert again.optuna.direction is optuna.study.StudyDirection.MAXIMIZE
    assert [t.value for t in again.optuna.trials] == [0.5, 0.75, 0.75]


def test_a_diverged_region_ranks_behind_one_stopped_early(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal")
    late, early = study.ask().number, study.ask().number
    study.report(late, 90, 9.0)
    study.tell(late, Verdict(Reason.DIVERGED), None)
    study.report(early, 4, 5.0)
    study.tell(early, Verdict(Reason.RUNG), 5.0)
    from optuna.samplers._tpe.sampler import _split_trials

    below, above = _split_trials(study.optuna, study.optuna.trials, 1)
    assert [t.number for t in below] == [early] and [t.number for t in above] == [late]


def record(number: int, study: Study, suggestion: Any, reason: Reason | None, losses: list[float]) -> TrialRecord:
    points = [Point(step=i + 1, tokens=0, value=loss, resource=i + 1) for i, loss in enumerate(losses)]
    return TrialRecord(
        number=number, params=dict(suggestion.params), distributions=dict(suggestion.distributions), points=points,
        reason=reason, status=reason.status if reason else None, started=1.0, ended=2.0, interrupted=reason is None,
    )  # fmt: skip


@pytest.mark.parametrize("sampler", [Tpe(), Rungs(n_startup_trials=3)], ids=lambda settings: settings.kind)
def test_a_study_built_from_the_ledger_suggests_what_the_first_would_have(tmp_path: Path, sampler: Any) -> None:
    path = tmp_path / "study.journal"
    reasons = [Reason.BUDGET, Reason.RUNG, Reason.DIVERGED, Reason.ERROR, Reason.FLATLINE, Reason.RUNG, Reason.BUDGET]
    study, records = make(path, sampler=sampler), []
    for i, reason in enumerate(reasons):
        suggestion = study.ask()
        losses = [5.0 - 0.3 * i, 4.0 - 0.3 * i]
        for resource, loss in enumerate(losses, start=1):
            study.report(suggestion.number, resource, loss)
        records.append(record(suggestion.number, study, suggestion, reason, losses))
        study.tell(suggestion.number, Verdict(reason), records[-1].best_value)
    undisturbed = study.ask()
    path.write_text("damaged")
    again = make(path, records, sampler=sampler)
    assert again.ask() == undisturbed
    first, second = study.optuna.trials[:7], again.optuna.trials[:7]
    for a, b in zip(first, second, strict=True):
        assert (a.state, a.value, a.params, a.intermediate_values) == (
            b.state,
            b.value,
            b.params,
            b.intermediate_values,
        )


def test_a_trial_that_was_cut_off_keeps_its_number_and_can_be_told(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = make(path)
    suggestion = study.ask()
    again = make(path, [record(0, study, suggestion, None, [5.0])])
    again.report(0, 2, 4.5)
    again.tell(0, Verdict(Reason.BUDGET), 4.5)
    assert [t.state.name for t in again.optuna.trials] == ["COMPLETE"]
    assert again.ask().number == 1


def test_another_program_can_open_the_journal(tmp_path: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / "study.journal"
    make(path, sampler=Random()).ask()
    storage = JournalStorage(JournalFileBackend(str(path)))
    assert [s.study_name for s in optuna.get_all_study_summaries(storage)] == ["first"]


@pytest.mark.parametrize(("trials", "startup"), [(4, 4), (16, 4), (32, 8), (40, 10), (200, 10)])
def test_startup_trials_scale_with_the_search(trials: int, startup: int) -> None:
    assert startup_trials(trials) == startup


def test_a_grid_is_walked_once_the_recipe_among_its_points(tmp_path: Path) -> None:
    space = load_space(
        {
            "parameters": {
                "batch_size": {"type": "choice", "values": [8, 16, 32]},
                "learning_rate": {"type": "choice", "values": [1e-3, 1e-2], "when": {"batch_size": [8, 16]}},
            }
        },
        Toy,
    )
    study = make(
        tmp_path / "study.journal", space=space, sampler=Grid(), recipe={"batch_size": 8, "learning_rate": 1e-3}
    )
    points = []
    while (suggestion := study.ask()) is not None:
        points.append(dict(suggestion.params))
        study.tell(suggestion.number, Verdict(Reason.BUDGET), 1.0)
    assert points[0] == {"batch_size": 8, "learning_rate": 1e-3}
    assert len(points) == space.size == 5 and len({str(sorted(p.items())) for p in points}) == 5


def test_a_persons_own_point_is_taken_as_it_is_and_filled_up(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal")
    study.ask()
    own = study.ask({"learning_rate": 0.25}, by="user")
    assert own is not None and own.number == 1 and own.params["learning_rate"] == 0.25
    assert own.params["batch_size"] in (8, 16)
    assert study.optuna.trials[1].user_attrs["suggested_by"] == "user"
    following = study.ask()
    assert following is not None and following.number == 2 and following.params["learning_rate"] != 0.25


def test_a_used_up_grid_still_fills_up_a_persons_own_point(tmp_path: Path) -> None:
    space = load_space({"parameters": {"batch_size": {"type": "choice", "values": [8, 16]}}}, Toy)
    study = make(tmp_path / "study.journal", space=space, sampler=Grid(), recipe={"batch_size": 8})
    assert [study.ask().params["batch_size"], study.ask().params["batch_size"]] == [8, 16]  # type: ignore[union-attr]
    assert study.ask() is None
    own = study.ask({}, by="user")
    assert own is not None and own.number == 2 and own.params["batch_size"] in (8, 16)


def test_the_attributes_of_a_search_are_written_anew_by_a_resume_and_those_of_others_are_kept(tmp_path: Path) -> None:
    """The journal of an earlier version has none."""
    path = tmp_path / "study.journal"
    make(path).optuna.set_user_attr("mine", 1)
    before = path.read_bytes()
    make(path, attributes={"state": "running", "model": "org/base"}).set_attribute("state", "interrupted: 0 of 16")
    study = make(path, attributes={"state": "running", "model": "org/other"})
    again = optuna.load_study(study_name="first", storage=opened(path))
    assert again.user_attrs == {"mine": 1, "state": "running", "model": "org/other"}
    assert study.ask().number == 0 and b"org" not in before
    lines = [line for line in path.read_bytes().splitlines() if b'"user_attr":' in line]
    assert len(lines) == 3, "one line an attribute, and none for each trial"
