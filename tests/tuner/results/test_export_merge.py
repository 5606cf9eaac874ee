"""A merge takes the base that the adapter was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import finished_run, write_ledger
from trainables.sft import SFT
from tuner.contract import InputError
from tuner.results.export import _same
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind, read_ledger
from tuner.results.program_calls import Doing, log_beside

DEMO = Path(__file__).resolve().parents[3] / "tuner" / "demo"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished search on a copy of the embedded base, whose ledger has the fingerprints of what it was made of."""
    path = finished_run(tmp_path)
    shutil.copytree(DEMO / "base", tmp_path / "base")
    resolved = json.loads((path / "resolved.json").read_text())
    resolved["model"]["model_name_or_path"] = str(tmp_path / "base")
    (path / "resolved.json").write_text(json.dumps(resolved))
    facts = SFT.made_of({name: resolved[name] for name in ("model", "data", "train")})
    events = list(read_ledger(path / "trials.jsonl"))
    write_ledger(path, [events[0], Event(Kind.PREPARED, time=events[0].time, details={"facts": facts}), *events[2:]])
    return RunFolder(path)


def asked(run: RunFolder, accept: bool = False) -> tuple[str, ...]:
    resolved: dict[str, Any] = json.loads(run.resolved.read_text())
    to = run.path.parent / "merged"
    return _same(run, resolved, to, log_beside(run, "export", to), Doing("a merge", "--merge"), accept=accept)


def test_a_merge_into_another_base_is_refused(run: RunFolder) -> None:
    assert asked(run) == ()
    weights = run.path.parent / "base" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-2] ^= 1
    weights.write_bytes(bytes(changed))
    with pytest.raises(InputError) as caught:
        asked(run)
    assert "changed since the adapter was trained" in caught.value.what and "model.safetensors was" in caught.value.what
    assert "--merge --accept-changes" in caught.value.remedy
    (note,) = asked(run, accept=True)
    assert note.startswith("accepted: the base")


def test_a_search_of_an_earlier_version_merges_with_a_note(tmp_path: Path) -> None:
    (note,) = asked(RunFolder(finished_run(tmp_path)))
    assert "cannot be told" in note
