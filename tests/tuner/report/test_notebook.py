"""The live view in a notebook, where there is none; in a real kernel: integration/test_api.py."""

from __future__ import annotations

import sys

import pytest

from tests.tuner.report import searches
from tuner.report.notebook import NotebookView, in_notebook


def test_a_process_without_a_kernel_is_no_notebook() -> None:
    assert not in_notebook({})
    pytest.importorskip("IPython")
    assert "IPython" in sys.modules and not in_notebook(sys.modules)


def test_its_picture_is_that_of_the_live_view(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("IPython")
    view = NotebookView(searches.LABELS)
    with view:  # without a kernel the picture is printed once
        for event in searches.running().events:
            view(event)
        view.say("stopping: saving what is running")
    assert "starting Ray" in capsys.readouterr().out
    picture = view._bundle()["text/plain"]
    assert "5 of 16 trials" in picture and "stopping: saving what is running" in picture
    assert max(map(len, picture.splitlines())) <= 100
