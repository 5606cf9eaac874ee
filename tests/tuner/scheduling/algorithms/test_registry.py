"""The registry of `scheduler.kind`, beside the settings sections."""

from __future__ import annotations

import typing

from tuner.config import Asha, NoScheduler, Scheduler
from tuner.contract import EVAL_LOSS
from tuner.scheduling.algorithms import ALGORITHMS, Candidate, make_algorithm, registered
from tuner.scheduling.ladder import Spacing, make_ladder
from tuner.scheduling.peers import Peers
from tuner.scheduling.rules import Reading


def test_every_settings_section_has_its_algorithm() -> None:
    union = typing.get_args(Scheduler)[0]
    kinds = {section.model_fields["kind"].default for section in typing.get_args(union)}
    assert kinds == set(ALGORITHMS)


def test_the_rungs_come_from_the_settings() -> None:
    def found(settings: Asha | NoScheduler) -> tuple[Spacing | None, tuple[float, ...], str]:
        spacing = registered(settings).spacing(settings)
        ladder = make_ladder(
            27, grace_period=1, reduction_factor=spacing.reduction_factor if spacing else None, warmup=0, eval_every=0.1
        )
        algorithm = make_algorithm(settings, ladder, EVAL_LOSS)
        return spacing, algorithm.milestones, registered(settings).describe(settings, "step 4 of 27" if spacing else "")

    assert found(Asha(grace_period=1)) == (Spacing(3, 1), (1, 3, 9), "at step 4 of 27; the best one in 3 goes on")
    assert found(NoScheduler()) == (None, (), "none: no trial is stopped for being behind others")


def test_without_comparison_the_rules_alone_end_a_trial() -> None:
    ladder = make_ladder(27, grace_period=None, reduction_factor=None, warmup=0, eval_every=0.1)
    algorithm, peers = make_algorithm(NoScheduler(), ladder, EVAL_LOSS), Peers((), EVAL_LOSS)
    for number, loss in enumerate([1.0, 9.0]):
        assert algorithm.decide(Candidate(number, [Reading(9, loss)]), peers).goes_on
    assert algorithm.decide(Candidate(2, [Reading(9, float("nan"))]), peers).verdict is not None
