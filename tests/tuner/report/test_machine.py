from __future__ import annotations

import json
import math
from pathlib import Path

from tests.tuner.report import searches
from tuner.report.machine import dump, search_json, status_json, trial_json


def test_search_json_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    told = json.loads(dump(search_json(searches.finished().record, tmp_path)))
    assert list(told) == [
        "name",
        "path",
        "trials",
        "counts",
        "best",
        "recipe",
        "objectives",
        "spent",
        "tokens",
        "wall_s",
        "timing",
        "price",
    ]
    assert told["timing"] == {
        "wall_s": 61.0, "busy_s": 48.0, "trial_s": 48.0, "worker_s": 48.0, "gpu_s": 0.0, "held_gpu_s": 0.0,
    }  # fmt: skip
    assert told["price"] is None and told["spent"] is None
    assert told["counts"] == {
        "status": {"completed": 3, "pruned": 4, "failed": 1},
        "reason": {"budget": 2, "rung": 2, "flatline": 1, "diverged": 2, "out_of_memory": 1},
    }
    assert told["best"] == {
        "trial": 1,
        "params": searches.params(2.9e-3, 64, "2r", 8),
        "eval_loss": 4.312,
        "metrics": {"eval_loss": 4.312},
        "path": str(tmp_path / "best"),
    }
    assert told["recipe"] == {"eval_loss": 4.874, "metrics": {"eval_loss": 4.874}}


def test_nothing_usable_is_null_and_not_an_error(tmp_path: Path) -> None:
    told = json.loads(dump(search_json(searches.hopeless().record, tmp_path)))
    assert told["best"] is None
    assert told["recipe"] == {"eval_loss": None, "metrics": {}}


def test_the_json_is_strict(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    record = searches.finished().record
    for value in (status_json(record, tmp_path), trial_json(record.trials[5])):
        json.loads(dump(value), parse_constant=refuse)
    assert dump({"a": [math.nan, math.inf], "b": tmp_path}) == f'{{"a": [null, null], "b": "{tmp_path}"}}'


def test_a_parked_trial_has_a_status_and_no_reason(tmp_path: Path) -> None:
    told = json.loads(dump(status_json(searches.parked().record, tmp_path)))
    rows = {row["number"]: (row["status"], row["reason"]) for row in told["leaderboard"]}
    assert rows[3] == ("parked", None) and rows[4] == ("interrupted", None) and rows[5] == ("stopped", "user")
    assert told["counts"]["status"] == {"completed": 2, "pruned": 1, "stopped": 2, "parked": 1}
