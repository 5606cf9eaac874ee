"""A run folder of version 0.1, which had `eval_loss` alone, is shown as that version showed it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tuner.contract import EVAL_LOSS
from tuner.report.machine import dump, status_json, trial_json
from tuner.results.folder import open_run
from tuner.results.ledger import Event

RUN = Path(__file__).parents[2] / "old_runs" / "v0_1"
WHERE = "/tmp/searches/older"
"""The path of the run when its answers were recorded."""


def contains(now: Any, then: Any) -> bool:
    """Whether every key that version 0.1 gave is there with its value, or neither has one; there may be more."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(contains(now.get(key), then[key]) for key in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(contains, now, then))
    return bool(now == then)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUN / "older", tmp_path / "older"))


def test_what_programs_read_of_it_is_all_there(older: Path) -> None:
    record = open_run(older.parent, "older").record()
    assert record.objectives == (EVAL_LOSS,)
    told = json.loads(dump(status_json(record, older)).replace(str(older), WHERE))
    then = json.loads((RUN / "status.json").read_text())
    del then["active"], then["damaged"]  # of the folder, not of the record
    assert contains(told, then)
    assert told["best"]["metrics"] == {"eval_loss": then["best"]["eval_loss"]}
    for number in (1, 2):
        trial = json.loads(dump(trial_json(record.trials[number])))
        before = json.loads((RUN / f"show-{number}.json").read_text())
        del before["adapter"]  # the command says its place from here
        assert contains(trial, {key: before[key] for key in trial.keys() & before.keys()})
        assert [point["metrics"].get("eval_loss") for point in trial["points"]] == [
            point["eval_loss"] for point in before["points"]
        ]
    assert trial["points"][-1]["metrics"] == {"eval_loss": None}, "a NaN, which strict JSON cannot write"


def test_its_events_are_written_with_the_new_fields_and_the_old_keys(older: Path) -> None:
    for line in (older / "trials.jsonl").read_text().splitlines():
        before = json.loads(line)
        now = json.loads(Event.from_json(line).to_json())
        assert contains(now, {key: value for key, value in before.items() if key != "sum"})
        loss, best = before["eval_loss"], before["best_eval_loss"]
        assert now["metrics"] == (None if loss is None else {"eval_loss": loss})
        assert now["best"] == (None if best is None else {"eval_loss": best})


def test_the_new_fields_win_over_the_old_keys() -> None:
    line = (
        '{"event":"evaluation","eval_loss":1.0,"best_eval_loss":1.0,"metrics":{"accuracy":0.5},"best":{"accuracy":0.6}}'
    )
    event = Event.from_json(line)
    assert (event.metrics, event.best) == ({"accuracy": 0.5}, {"accuracy": 0.6})
