"""A probe beside the search that follows, on real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.integration.conftest import SPACE, TOY
from tuner.config import load_experiment
from tuner.contract import InputError
from tuner.driver.probing import AT, probe
from tuner.results.ledger import Event, Kind

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 0.2
"""How far a forecast may be from what happens, as a share of that."""


def toy(storage: Path, **settings: Any) -> Any:
    flags = {"run.program": TOY, "run.storage_path": str(storage), "search.space": SPACE, "run.trackers": ("mlflow",)}
    flags |= {"resources.max_concurrent_trials": 2, "search.num_trials": 8}
    return load_experiment(None, (), flags | {name.replace("__", "."): value for name, value in settings.items()})


def test_a_probe_measures_two_trials_of_each_worker_and_leaves_nothing(ray: None, tmp_path: Path) -> None:
    storage, events = tmp_path / "runs", list[Event]()
    rates = probe(toy(storage, train__pace=0.3, train__max_steps=100), 100, (events.append,))
    ended = [e.number for e in events if e.event is Kind.ENDED and (e.details or {}).get("message") == "probed"]
    assert ended[:4] and set(ended[:4]) == {0, 1, 2, 3} and len(ended) <= 6
    assert max(e.step or 0 for e in events if e.event is Kind.EVALUATION and e.number == 0) == 20
    assert sum(e.event is Kind.EVALUATION and e.number == 0 for e in events) == len(AT)
    assert (rates.workers, rates.at_once) == (2, 2)
    # A toy sleeps before each evaluation, however many steps it is
    assert 0.25 < rates.evaluation_s + 5 * rates.step_s < 0.6 and rates.tokens[0] == 100 * 100
    assert not storage.exists()


@pytest.mark.slow
def test_a_trial_that_cannot_run_is_said(ray: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing could be measured: .*trainable") as caught:
        probe(toy(tmp_path, train__behaviour="frozen", train__misbehaving=[0, 1, 2, 3]), 27)
    assert caught.value.where == "--probe" and not list(tmp_path.iterdir())


def tuner(*arguments: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tuner", *arguments, "--json"]
    found = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300).stdout
    told: dict[str, Any] = json.loads(found)
    return told


@pytest.mark.slow
def test_three_searches_of_the_default_take_what_their_probes_said(tmp_path: Path) -> None:
    """Machines are busier at one time than at another: the middle one of three is compared for the time."""
    apart = []
    for number in range(3):
        seen = tuner("plan", "--probe", folder=tmp_path)["outlook"]
        took = tuner("search", "--name", f"run-{number}", folder=tmp_path)
        assert seen["tokens"]["likely"] == pytest.approx(took["tokens"], rel=CLOSE)
        apart.append(seen["wall_s"]["likely"] / took["wall_s"] - 1)
        print(f"time foreseen {seen['wall_s']['likely']:.1f} s, took {took['wall_s']:.1f} s; "
              f"tokens {seen['tokens']['likely']:.0f}, {took['tokens']}")  # fmt: skip
    assert abs(median(apart)) < CLOSE, apart
