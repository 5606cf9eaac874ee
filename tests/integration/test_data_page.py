"""The page of `tuner data --html` in a real browser: what it shows, that it asks for nothing, and that what rows hold
stays text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import looked
from tests.programs.browser import Browser, browser, needs_browser
from tuner.cli import run

pytestmark = [needs_browser, pytest.mark.slow]  # a browser starts in 2 to 20 s

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tuner" / "demo"
SCREENSHOT = ROOT / "docs" / "data-page.png"
"""Written anew where it is missing."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return looked.folder_of_files(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def colours(reader: Browser) -> tuple[str, str]:
    """The computed colours of the ground and the text."""
    style: Any = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    ground, text = reader.driver.execute_script(style)
    return str(ground), str(text)


@pytest.mark.parametrize("kind", looked.KINDS)
def test_the_page_of_each_kind(
    kind: str, place: Path, reader: Browser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    file, _ = looked.KINDS[kind]
    page = place / f"{Path(file).stem}.html"
    code = run(["data", file, "--model", "base", "--html", str(page), "--set", "data.max_length=48", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (2 if kind == "faults" else 0)
    reader.requests()
    reader.prefer("light")
    reader.open(page.as_uri())
    asked = [url for url in reader.requests() if not url.startswith(("data:", "about:", "chrome"))]
    assert asked == [page.as_uri()] and reader.complaints() == []

    said = reader.text()
    for found in told["sets"]:
        assert f"{found['rows']:,} row" in said and f"{found['tokens']:,}, {found['learned']:,} of them learned" in said
        for finding in found["findings"]:
            assert finding["what"] in said
    rows = [row for found in told["sets"] for row in found["shown"]]
    articles = reader.driver.find_elements("css selector", "article")
    assert len(articles) == len(rows) >= 7
    for article, row in zip(articles, rows, strict=True):
        marked = [mark.get_attribute("textContent") for mark in article.find_elements("tag name", "mark")]
        learned = [piece["text"] for piece in row["pieces"] if piece["learned"]]
        assert len(marked) == len(learned)
        plain = [(mark, text) for mark, text in zip(marked, learned, strict=True) if text.isprintable()]
        assert all(mark == text for mark, text in plain)

    light = colours(reader)
    reader.prefer("dark")
    dark = colours(reader)
    assert light == ("rgb(255, 255, 255)", "rgb(31, 35, 40)") and dark == ("rgb(13, 17, 23)", "rgb(230, 237, 243)")
    wide = reader.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "nothing is cut off at the right"


def test_what_rows_hold_stays_text(
    place: Path, reader: Browser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup, scripts, escape codes and right-to-left text, in a row, in a column's name and in a file's name."""
    monkeypatch.chdir(place)
    bad = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    rows = [{"text": f"{bad}\x1b[31m שלום \u202eabc"}, *({"text": f"the cat {i}", bad: i} for i in range(12))]
    file = place / "<b>odd & bold.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = place / "odd.html"
    assert run(["data", str(file), "--model", "base", "--html", str(page), "--row", "1"]) == 0
    assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)
    reader.open(page.as_uri())
    assert reader.driver.title == "Rows of <b>odd & bold.jsonl"
    assert reader.driver.find_elements("tag name", "script") == reader.driver.find_elements("tag name", "img") == []
    said = reader.text()
    assert bad in said and "\\x1b[31m" in said and "\\u202eabc" in said and "שלום" in said
    assert not {"\x1b", "\u202e"} & set(page.read_text("utf-8"))
    assert reader.complaints() == []


def test_the_picture_in_the_documents(place: Path, reader: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    shutil.copyfile(DEMO / "train.jsonl", "train.jsonl")
    shutil.copytree(DEMO / "base", "my-base", dirs_exist_ok=True)
    page = place / "train.html"
    arguments = ["train.jsonl", "--model", "my-base", "--html", str(page), "--set", "data.max_length=48"]
    assert run(["data", *arguments, "--set", "data.max_validation_rows=64"]) == 0
    reader.driver.set_window_size(1150, 1750)
    reader.prefer("light")
    reader.open(page.as_uri())
    assert "1,299 rows" in reader.text() and "Left out:" in reader.text()
    if not SCREENSHOT.exists():
        reader.picture(SCREENSHOT)
    assert SCREENSHOT.stat().st_size > 10_000
