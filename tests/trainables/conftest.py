"""Fixtures of the tests of the SFT program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.sft import SFT


@pytest.fixture
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a state with every evaluation, however long that takes."""
    from trainables import states

    monkeypatch.setenv(states.EVERY, "0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for a module's tokenized rows."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def program(sft_settings: Callable[..., dict[str, Any]], cache: Path) -> Callable[..., SFT]:
    """Makes a program of the tiny settings, with changes by section."""

    def make(**sections: dict[str, Any]) -> SFT:
        settings = sft_settings(**sections)
        return SFT(settings, SFT.prepare(settings, cache))

    return make
