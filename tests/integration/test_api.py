"""`from tuner import search` where people call it: in a script, and in the kernel of a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = "tests.programs.toy:Toy"

pytestmark = pytest.mark.slow  # each starts a Ray of its own, twice

SCRIPT = f"""
import json, sys
from tuner import search
given = dict(name="first", settings={{"run.program": "{TOY}", "resources.cpus_per_trial": 0.5}}, progress=False,
             space={{"parameters": {{"learning_rate": {{"type": "float", "low": 1e-4, "high": 1.0, "log": True}}}}}},
             allow_modules=["tests"], resume=True)
heard = []
first = search(num_trials=3, listeners=[heard.append], **given)
more = search(num_trials=5, **given)
print(json.dumps([first.outcome.exit_code, len(first.record().trials), more.record().sessions, str(more.best),
                  str(heard[0].event), "torch" in sys.modules]))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def test_a_script_searches_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    code, trials, sessions, best, heard, torch = json.loads(done.stdout.splitlines()[-1])
    assert (code, trials, sessions, heard, torch) == (0, 5, 2, "search", False)
    assert best == str(tmp_path / "runs" / "first" / "best")


def test_a_notebook_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [
        "from tuner import plan, search, open_run",
        f"settings = {{'run.program': '{TOY}', 'train.pace': 0.2, 'resources.cpus_per_trial': 0.5}}\n"
        "given = dict(settings=settings, space={'parameters': {'learning_rate': {'type': 'float', 'low': 1e-4, "
        "'high': 1.0, 'log': True}}}, allow_modules=['tests'], num_trials=3)\nplan(**given).recipe",
        "run = search(name='first', **given)",
        "run",
        "open_run('first').status()['best']['trial'] == run.record().best.number",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    seen: list[str] = []
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    keep = client.process_message

    def process(message: dict, *arguments: object) -> object:  # every picture, also those that later ones replace
        if message["msg_type"] in ("display_data", "update_display_data"):
            seen.append(message["content"]["data"]["text/plain"])
        return keep(message, *arguments)

    client.process_message = process
    client.execute()
    _, planned, searched, shown, same = book.cells
    assert planned.outputs[0]["data"]["text/plain"] == "{'learning_rate': 0.001}"
    (output,) = [one for one in searched.outputs if one["output_type"] == "display_data"]
    last = output["data"]["text/plain"]
    assert "3 of 3 trials" in last and "100%" in last and "best" in last
    assert len(seen) > 4 and "starting Ray" in seen[0] and any("running on" in picture for picture in seen)
    printed = [one["text"] for one in searched.outputs if one["output_type"] == "stream"]
    assert all("ipywidgets" in text for text in printed), "nothing beside it but Ray's hint at ipywidgets"
    assert "first  3 of 3 trials" in shown.outputs[0]["data"]["text/plain"]
    assert same.outputs[0]["data"]["text/plain"] == "True"
