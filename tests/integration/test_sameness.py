"""A resume, and a winner's second training, require what the search was made of, unless the user allows another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs.made import FILE
from tuner.config import load_experiment
from tuner.contract import InputError
from tuner.driver.session import Outcome, resume_search, run_search
from tuner.results.ledger import Kind, read_ledger

Toy = Callable[..., Outcome]
MADE = "tests.programs.made:Made"


def test_another_base_is_refused_or_accepted(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.write_text("11")
    monkeypatch.setenv(FILE, str(base))
    first = toy(run__program=MADE, search__num_trials=2)
    told = [e.details["facts"]["made_of"] for e in read_ledger(first.path / "trials.jsonl") if e.event is Kind.PREPARED]
    assert sorted(told[0]) == ["base", "libraries", "program"] and told[0]["program"]["source"] == MADE

    base.write_text("12")
    with pytest.raises(InputError) as caught:
        resume_search(tmp_path, "toy", num_trials=3)
    assert "the base" in caught.value.what and "weights was 11, is 12" in caught.value.what
    assert "--accept-changes" in caught.value.remedy and "--resume toy" in caught.value.remedy
    again = resume_search(tmp_path, "toy", num_trials=3, accept_changes=True)
    assert again.exit_code == 0 and len(again.record.ended) == 3
    assert any(note.startswith("accepted: the base") for note in again.record.notes)
    third = resume_search(tmp_path, "toy", num_trials=4)  # what was accepted is known from there on
    assert third.exit_code == 0

    experiment = load_experiment(third.path / "best" / "train.yaml", (), {"run.storage_path": str(tmp_path)})
    assert experiment.run.made_of["base"].source == str(base)
    base.write_text("13")
    with pytest.raises(InputError, match="changed since these settings were written"):
        run_search(experiment)
    assert [place.name for place in tmp_path.iterdir() if place.is_dir()] == ["toy"], "nothing is left of it"
    accepted = run_search(experiment, accept_changes=True)
    assert accepted.exit_code == 0 and any(note.startswith("accepted") for note in accepted.record.notes)


@pytest.mark.slow
def test_own_code_counts_and_an_earlier_versions_ledger_is_gone_on_with(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.driver import ingredients

    code = {name: told for name, told in ingredients._code("tests").items() if name.startswith("programs/")}
    monkeypatch.setattr(ingredients, "_code", lambda module: code)  # of a package as large as the tests one sum is kept
    first = toy(search__num_trials=2)
    code = {**code, "programs/toy.py": "another"}
    with pytest.raises(InputError, match=r"the program tests\.programs\.toy:Toy changed .* programs/toy\.py was "):
        resume_search(tmp_path, "toy", num_trials=3)

    ledger = first.path / "trials.jsonl"
    lines = [line for line in ledger.read_text().splitlines() if json.loads(line)["event"] != "prepared"]
    ledger.write_text("".join(f"{line}\n" for line in lines))
    again = resume_search(tmp_path, "toy", num_trials=3)
    assert again.exit_code == 0 and any("an earlier version began this search" in note for note in again.record.notes)


def test_precision_that_follows_the_device_is_told() -> None:
    from tuner.contract import load_program
    from tuner.driver.ingredients import unlike_the_first
    from tuner.results.records import SearchRecord, TrialRecord

    setups = [{"dtype": "bfloat16", "compute_dtype": None}, {"dtype": "bfloat16"}, {"dtype": "float32"}]
    record = SearchRecord(trials={n: TrialRecord(number=n, setup=dict(setup)) for n, setup in enumerate(setups)})
    unlike = load_program("sft").unlike
    assert unlike_the_first(record, 1, unlike) == ""
    assert "some trials compute in bfloat16, some in float32" in unlike_the_first(record, 2, unlike)
    assert load_program("tests.programs.toy:Toy").unlike(setups[0], setups[2]) == ""
