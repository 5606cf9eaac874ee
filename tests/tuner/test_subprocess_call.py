"""What a program says in its own process of how far it is reaches the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.telling import SECONDS
from tuner.subprocess_call import SubprocessProgram


@pytest.mark.parametrize(("program", "tells"), [("telling:Telling", True), ("made:Made", False)])
def test_how_far_a_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, tells: bool) -> None:
    """Several times a second and not a thousand; a `prepare` without the parameter is called as before."""
    (tmp_path / "weights").write_text("x")
    monkeypatch.setenv("TUNER_TEST_MADE_OF", str(tmp_path / "weights"))
    monkeypatch.setenv(SECONDS, "1.5")
    heard: list[str] = []
    call = SubprocessProgram(f"tests.programs.{program}", "prepare", {}, str(tmp_path), log=tmp_path / "log")
    try:
        assert call.result(heard.append)["tokens"] == 100_000
    finally:
        call.close()
    assert not list(tmp_path.glob(".call-*"))
    if not tells:
        assert heard == []
        return
    *counted, last = heard
    assert last == "" and 2 <= len(counted) <= 8
    assert all(text.startswith("counting: 0.") for text in counted) and counted == sorted(set(counted))
