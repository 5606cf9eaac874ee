"""The permission to run own code is kept for the settings of a search, and for no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner import importing
from tuner.driver.permits import remember, with_remembered
from tuner.importing import Own, Permission

DIGEST, OTHER = "a" * 64, "b" * 64


def test_it_is_remembered_for_these_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr(importing, "_added", [])
    remember(DIGEST, [Own("spaces:mine", tmp_path / "spaces.py", tmp_path, allowed=True)])
    (kept,) = (tmp_path / "state").rglob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert with_remembered(Permission(("x",), beside=False), DIGEST) == Permission(("x", "spaces"), beside=False)
    assert importing.search_folders() == [str(tmp_path)]
    assert with_remembered(Permission(beside=False), OTHER) == Permission(beside=False)


@pytest.mark.parametrize("digest", ["", "../" * 5 + "etc/passwd", "a" * 63, "A" * 64, DIGEST + "\n"])
def test_what_is_no_digest_leads_nowhere(digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    remember(digest, [Own("spaces:mine", tmp_path / "spaces.py", tmp_path, allowed=True)])
    assert with_remembered(Permission(), digest) == Permission() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", '{"code": 3}', '{"code": [{"module": "x"}]}', "[" * 9000, "\x00"])
def test_what_was_damaged_allows_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "tuner" / "code").mkdir(parents=True)
    (tmp_path / "tuner" / "code" / f"{DIGEST}.json").write_text(text)
    assert with_remembered(Permission(), DIGEST) == Permission()
