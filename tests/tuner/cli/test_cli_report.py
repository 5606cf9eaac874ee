"""`report` on run folders alone: without Ray, without torch, and without plotly where no page is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.dashboard import serving
from tests.tuner.report import searches
from tuner.cli import run

ROOT = Path(__file__).parents[3]


def test_the_page_is_written_into_the_run_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    assert run(["report", "found"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "wrote runs/found/report.html\n"
    page = (runs / "runs" / "found" / "report.html").read_text("utf-8")
    assert "--set train.learning_rate=6e-3 --name found-higher" in page
    assert run(["report", "first", "--out", "page.html"]) == 0
    assert (runs / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>") and page.endswith("</html>\n")


def test_a_link_in_its_place_is_not_followed(runs: Path) -> None:
    pytest.importorskip("plotly")
    (runs / "mine.txt").write_text("mine")
    (runs / "runs" / "first" / "report.html").symlink_to(runs / "mine.txt")
    assert run(["report", "first"]) == 0
    assert (runs / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["md", "json", "csv"])
def test_text_goes_to_standard_output_or_into_a_file(
    runs: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)  # as where it is not installed
    assert run(["report", "first", "--format", kind]) == 0
    told = capsys.readouterr().out
    assert run(["report", "first", "--format", kind, "--out", f"x.{kind}"]) == 0
    assert capsys.readouterr().out == "" and (runs / f"x.{kind}").read_text("utf-8") == told
    assert told.startswith({"md": "# first\n", "json": '{"name": "first"', "csv": "trial,"}[kind])


def test_without_plotly_it_says_what_to_install(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert run(["report", "first"]) == 2
    assert capsys.readouterr().err == (
        "error: --format html: plotly, which draws the plots, is not installed\n"
        "  expected: plotly, or --format md, json or csv\n"
        "  try: python -m pip install plotly\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "frist"], "expected: one of: first"),
        (["report", "first", "--out", "runs"], "--out runs: is a folder"),
        (["report", "first", "--out", "no/such/page.html"], "there is no folder no/such"),
        (["report", "first", "--format", "pdf"], "'pdf' is not one of"),
    ],
)
def test_what_cannot_be_is_said(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""


def test_a_folder_that_cannot_be_written_names_another_place(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly")
    (runs / "runs" / "first" / "report.html").mkdir()
    (runs / "runs" / "first" / "report.html" / "kept").touch()
    assert run(["report", "first"]) == 2
    told = capsys.readouterr().err
    assert "runs/first/report.html: cannot be written" in told and "try: give another place: --out report.html" in told
    assert not list((runs / "runs" / "first").glob("*.new"))


def test_the_end_of_a_search_says_what_was_found_and_what_to_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "found"]) == 0
    told = capsys.readouterr().out
    assert "found  learning_rate mattered most (" in told
    assert "       learning_rate ends at its upper bound 3e-3: search higher\n" in told
    behind = "python -m tuner train runs/found/best/train.yaml --set train.learning_rate=6e-3 --name found-higher"
    assert f"next   {behind}\n       python -m tuner report found\n" in told


def test_neither_ray_nor_torch_is_imported(runs: Path) -> None:
    code = (
        "import sys\nfrom tuner.cli import run\n"
        "codes = [run(words.split()) for words in ('report first --out x.html', 'compare first found', 'status', "
        "'show found')]\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules], codes)"
    )
    pytest.importorskip("plotly")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "[] [0, 0, 0, 0]", done.stderr


def test_a_search_on_a_cluster_is_reported_here(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path) as cluster:
        at = ["--address", cluster.url]
        cluster.write(searches.found().events)
        assert run(["report", "first", "--format", "md", *at]) == 0
        told = capsys.readouterr().out
        assert "# found" in told and f"python -m tuner report first --address {cluster.url}" in told
        cluster.end("SUCCEEDED", exit_code=0)
        assert run(["report", "first", "--format", "json", *at]) == 0
        assert '"path": "/shared/runs/first"' in capsys.readouterr().out
        pytest.importorskip("plotly")
        assert run(["report", "first", *at]) == 0
        assert capsys.readouterr().err == "wrote first-report.html\n"
        assert (runs / "first-report.html").read_text("utf-8").endswith("</html>\n")
        assert run(["report", "frist", *at]) == 2
        assert "expected: one of: first" in capsys.readouterr().err
