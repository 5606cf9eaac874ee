"""The report of a search in a real browser: all plots drawn, nothing on the console, nothing asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import write_ledger
from tests.programs.browser import Browser, browser, needs_browser, until
from tests.tuner.report import searches
from tests.tuner.report.test_search_page import EVIL
from tuner.cli import run

pytestmark = [needs_browser, pytest.mark.slow]  # a browser starts in 2 to 20 s
pytest.importorskip("plotly")

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = {"light": DOCS / "report-light.png", "dark": DOCS / "report-dark.png"}
"""Written anew where TUNER_REPORT_OF names the folder of a run, whose report they show."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def write(place: Path, tape: searches.Tape, name: str) -> Path:
    """The page of a search."""
    folder = place / "runs" / name
    folder.mkdir(parents=True)
    write_ledger(folder, tape.events)
    (folder / "best").mkdir()
    for kept in ("manifest.json", "train.yaml"):
        (folder / "best" / kept).write_text("{}", encoding="utf-8")
    (folder / "resolved.json").write_text('{"run": {"program": "sft"}}', encoding="utf-8")
    assert run(["report", name, "--storage-path", str(place / "runs")]) == 0
    return folder / "report.html"


def show(reader: Browser, page: Path, scheme: str = "light") -> list[str]:
    """Opens a page, waits until its plots are drawn, and gives what it asked for."""
    reader.requests()
    reader.prefer(scheme)
    reader.open(page.as_uri())
    until(lambda: reader.driver.execute_script("return document.documentElement.dataset.drawn"))
    return [url for url in reader.requests() if not url.startswith(("data:", "about:", "chrome"))]


def evaluate(reader: Browser, script: str) -> Any:
    return reader.driver.execute_script(script)


def test_every_plot_is_drawn_and_nothing_is_asked_for(tmp_path: Path, reader: Browser) -> None:
    page = write(tmp_path, searches.found(), "found")
    assert show(reader, page) == [page.as_uri()]
    assert reader.complaints() == []
    plots = reader.driver.find_elements("css selector", ".plot")
    assert len(plots) == 10
    for plot in plots:
        drawn = plot.find_elements("css selector", ".main-svg .plot path, .main-svg .plot .point, .main-svg .trace")
        assert plot.size["height"] > 100 and drawn, plot.get_attribute("id")
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert evaluate(reader, wide), "nothing is cut off at the right"


def test_the_first_screen_says_best_noise_importance_cost_and_next_step(tmp_path: Path, reader: Browser) -> None:
    page = write(tmp_path, searches.found(), "found")
    reader.driver.set_window_size(1200, 860)
    show(reader, page)
    seen = {}
    for card in reader.driver.find_elements("css selector", ".card"):
        assert card.location["y"] + card.size["height"] <= evaluate(reader, "return window.innerHeight")
        head, _, rest = card.text.partition("\n")
        seen[head] = rest
    assert set(seen) == {"Best", "Noise", "Cost", "What mattered", "Next"}
    assert "trial 2: 5.041, 2.4% below the recipe's 5.163" in seen["Best"]
    assert "not measured" in seen["Noise"] and "tokens" in seen["Cost"]
    assert "learning_rate mattered most" in seen["What mattered"] and "search higher" in seen["What mattered"]
    assert "python -m tuner " in seen["Next"]


def test_both_colour_schemes_reach_the_plots(tmp_path: Path, reader: Browser) -> None:
    page = write(tmp_path, searches.found(), "found")
    show(reader, page)
    colours = (
        "const b = getComputedStyle(document.body), t = document.querySelector('#curves-0 .xtitle');"
        "return [b.backgroundColor, b.color, getComputedStyle(t).fill]"
    )
    light = evaluate(reader, colours)
    assert light == ["rgb(255, 255, 255)", "rgb(31, 35, 40)", "rgb(31, 35, 40)"]
    reader.prefer("dark")
    dark = ["rgb(13, 17, 23)", "rgb(230, 237, 243)", "rgb(230, 237, 243)"]
    until(lambda: evaluate(reader, colours) == dark)
    assert reader.complaints() == []


def test_a_click_on_a_heading_sorts(tmp_path: Path, reader: Browser) -> None:
    page = write(tmp_path, searches.found(), "found")
    show(reader, page)

    def column(at: int) -> list[str]:
        return [
            cell.get_attribute("textContent")
            for cell in reader.driver.find_elements("css selector", f"table.sortable tbody td:nth-child({at})")
        ]

    buttons = reader.driver.find_elements("css selector", "th button")
    heads = [one.text for one in buttons]
    rates = 1 + heads.index("learning_rate")
    assert [float(x) for x in column(rates)] != sorted(float(x) for x in column(rates))
    buttons[rates - 1].click()
    assert [float(x) for x in column(rates)] == sorted(float(x) for x in column(rates))
    buttons[rates - 1].click()
    assert [float(x) for x in column(rates)] == sorted((float(x) for x in column(rates)), reverse=True)
    buttons[0].click()
    assert column(1) == [str(number) for number in range(16)]


def test_what_others_wrote_stays_text(tmp_path: Path, reader: Browser) -> None:
    """Markup in a parameter's name, in a value, in a note and in an ending: shown, and not carried out."""
    tape = searches.Tape(name="first", num_trials=12)
    tape.prepared(EVIL)
    link = '<a href="http://example.com/x">link</a>'
    drawn = {name: searches.choices(name, "plain") for name in (EVIL, link)} | searches.DRAWN_FROM
    for number in range(12):
        point = {**searches.params(1e-3 / (1 + number), 8, "2r", 8), EVIL: (EVIL, "plain")[number % 2], link: link}
        tape.trial(number, point, [7.0, 5.0 + number / 10], None, drawn)
        tape.end(number, searches.Verdict(searches.Reason.BUDGET, EVIL))
    tape.finish()
    page = write(tmp_path, tape, "first")
    assert show(reader, page) == [page.as_uri()] and reader.complaints() == []
    body = "return [...document.querySelectorAll('main, body')][0]"
    for kind in ("img", "a", "iframe", "body b"):
        assert evaluate(reader, body + f".querySelectorAll('{kind}').length") == 0, kind
    assert "<script>alert(1)</script>" in reader.text()


def test_the_pictures_in_the_documents(reader: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder = os.environ.get("TUNER_REPORT_OF")
    if run_folder and Path(run_folder).is_dir():
        shutil.copytree(run_folder, tmp_path / "runs" / "first")
        monkeypatch.chdir(tmp_path)
        assert run(["report", "first"]) == 0
        reader.driver.set_window_size(1100, 1500)
        for scheme, picture in PICTURES.items():
            assert len(show(reader, tmp_path / "runs" / "first" / "report.html", scheme)) == 1
            reader.picture(picture)
    for picture in PICTURES.values():
        assert picture.stat().st_size > 10_000
