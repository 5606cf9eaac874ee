"""`tuner data`: golden text for five kinds of file, what it counts, and what it is given by mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import looked
from tests.tuner.report import golden
from tuner.cli import run
from tuner.report import counter

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the five files and a tokenizer, `base`."""
    return looked.folder_of_files(tmp_path_factory.mktemp("looked"))


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "100")


EXTRA = {
    "prompt and completion": ["--set", "data.max_length=48", "--rows", "2"],
    "messages": ["--set", "data.assistant_only_loss=true", "--rows", "2"],
    "text": ["--rows", "2"],
    "tools": ["--set", "data.assistant_only_loss=true", "--rows", "1"],
    "faults": ["--set", "data.max_length=48", "--rows", "2"],
}


def test_five_kinds_of_file(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(counter, "FIRST_S", 3600.0)  # on a busy machine lines of progress would stand between
    parts = {}
    for kind, (file, _) in looked.KINDS.items():
        code = run(["data", file, "--model", "base", *EXTRA[kind]])
        said = capsys.readouterr()
        assert "\x1b" not in said.out and "Traceback" not in said.err
        parts[f"{kind}, exit code {code}"] = said.out + said.err.replace(f"{place}/", "")
    for row in "1", "3":
        assert run(["data", "texts.jsonl", "--model", "base", "--row", row]) == 0
        parts[f"text, row {row}"] = f"line {capsys.readouterr().out.partition(f'{chr(10)}line ')[2]}"
    golden.check("cli_data.txt", parts)


def test_at_forty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(["data", "completions.jsonl", "--model", "base", "--rows", "1"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 40
    golden.check("cli_data_narrow.txt", {"40 columns": said})


def data(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert run(["data", *arguments, "--model", "base", "--json"]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_what_is_learned_is_what_the_preparation_makes_a_label(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, tokens, labels, rows cut and rows left out are those of a search with the same settings."""
    from trainables import preparing
    from trainables.settings import Settings

    given = {"train": str(place / "completions.jsonl"), "max_length": 40}
    model = {"model_name_or_path": str(place / "base")}
    settings = Settings.model_validate({"model": model, "data": given})
    facts = preparing.prepare_rows(settings, tmp_path).facts
    told = data("completions.jsonl", "--set", "data.max_length=40", capsys=capsys)
    for found in told["sets"]:
        ours = facts[found["name"]]
        at = next(one for one in found["at"] if one["length"] == 40)
        assert found["rows"] - at["left_out"] == ours["rows"]
        assert at["left_out"] == ours["dropped_rows"] and at["cut"] == ours["truncated_rows"]
        assert found["learned"] - at["lost"] == ours["label_tokens"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.jsonl"], ["no file or folder", "nothing.jsonl"]),
        (["completion.jsonl"], ["did you mean `completions.jsonl`?"]),
        (["nothing.yaml"], ["no file or folder", "nothing.yaml"]),
        (["norun"], ["there is no run 'norun'"]),
        (["completions.jsonl", "--row", "4000"], ["no row 4000", "expected: line 1 to line 42"]),
        (["completions.jsonl", "--html", "page.txt"], ["--html page.txt", "a name that ends in .html"]),
        (["completions.jsonl", "--html", "no/page.html"], ["there is no folder no"]),
        (["completions.jsonl", "--rows", "-1"], ["--rows"]),
        (["base"], ["a folder without files of rows"]),
        (["empty.jsonl"], ["no rows: it is empty"]),
        (["broken.jsonl"], ["broken.jsonl:2: malformed JSON", "expected: one JSON object a line"]),
        (["completions.jsonl", "--set", "data.split=1", "--set", "x.y=1"], ["x"]),
        (["completions.jsonl", "--program", "tests.programs.toy:Toy"], ["data"]),
    ],
)
def test_what_it_is_given_by_mistake(
    arguments: list[str], told: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty.jsonl").write_text("\n")
    (place / "broken.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt\n')
    assert run(["data", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and "Traceback" not in said.err
    for text in told:
        assert text in said.err


def test_a_program_without_rows_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "toy.yaml").write_text('run: {program: "tests.programs.toy:Toy"}\n')
    assert run(["data", "toy.yaml"]) == 2
    assert "shows no rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for message in %}", "the chat template is malformed"),
        ("the same for all", "the chat template ignores the messages"),
    ],
)
def test_a_template_that_cannot_work(template: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "own.jinja").write_text(template)
    assert run(["data", "messages.jsonl", "--model", "base", "--set", "data.chat_template=own.jinja"]) == 2
    said = capsys.readouterr()
    assert told in said.err and "expected: " in said.err and "try: " in said.err
    assert re.search(r"messages\.jsonl:\d|own\.jinja", said.err)


def test_a_template_that_takes_all_rows_but_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are shown, the row is named, and the exit code is that of the search."""
    rows = [json.loads(line) for line in (place / "messages.jsonl").read_text().splitlines()]
    rows[6]["messages"][0]["role"] = "nobody"
    (place / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refuses = (
        "{% for m in messages %}{% if m.role == 'nobody' %}{{ raise_exception('no role') }}{% endif %}{% endfor %}"
    )
    (place / "strict.jinja").write_text(refuses + looked.TEMPLATE)
    arguments = ["one.jsonl", "--set", "data.chat_template=strict.jinja"]
    told = data(*arguments, capsys=capsys, code=2)
    refused = [one for found in told["sets"] for one in found["findings"] if one["kind"] == "refused"]
    assert [one["count"] for one in refused] == [1] and "line 7" in refused[0]["examples"][0]
    assert "no role" in told["refusal"]["what"] and told["refusal"]["where"].endswith("one.jsonl:7")
    assert sum(found["looked"] for found in told["sets"]) == len(rows) - 1


def test_one_row_by_its_number_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    told = data("completions.jsonl", "--row", "42", capsys=capsys)
    (row,) = [row for found in told["sets"] for row in found["shown"]]
    assert row["place"] == "line 42"
    before, learned = row["pieces"]
    assert before["text"] == "reverse: the long one =>" and learned["learned"]
    assert learned["text"].endswith(looked.END) and learned["text"].count(" ") > 40


@pytest.mark.slow  # its tokenizer takes 13 s of a core
def test_rows_of_ten_megabytes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a", "completion": " the cat" * 20}] * 3 + [
        {"prompt": "b", "completion": " the cat" * 1_300_000}
    ]
    (place / "wide.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["data", "wide.jsonl", "--model", "base", "--row", "4"]) == 0
    said = capsys.readouterr().out
    assert len(said) < 300_000 and "tokens …" in said and "cut at 1,024 tokens" in said


def test_rows_that_training_and_validation_share(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (place / "completions.jsonl").read_text().splitlines()
    (place / "held.jsonl").write_text(
        "\n".join(["", lines[7], lines[9], '{"prompt": "new", "completion": "x"}']) + "\n"
    )
    told = data("completions.jsonl", "--validation", "held.jsonl", capsys=capsys)
    (shared,) = told["findings"]
    assert shared["count"] == 2 and shared["what"] == "that validation shares with training"
    assert shared["examples"] == ["line 2: as line 8 of train", "line 3: as line 10 of train"]


def test_a_search_file_has_the_settings_and_plan_the_short_form(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = "model: {model_name_or_path: base}\ndata: {train: completions.jsonl, max_length: 48}\n"
    (place / "own.yaml").write_text(written)
    assert run(["data", "own.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["limit"] == 48 and told["note"] == ""
    assert run(["plan", "own.yaml"]) == 0
    said = capsys.readouterr().out
    (train, validation) = told["sets"]
    assert re.search(rf"^rows   train: {train['rows']} rows, .* learned \(\d+%\), ", said, re.MULTILINE)
    assert re.search(rf"^       validation: {validation['rows']} rows", said, re.MULTILINE)
    assert "equal to an earlier row" in " ".join(said.split())
    assert run(["plan", "own.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [one["tokens"] for one in plan["data"]["sets"]] == [one["tokens"] for one in told["sets"]]


def test_plan_says_what_a_search_would_refuse_and_stays_a_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bad.yaml").write_text("model: {model_name_or_path: base}\ndata: {train: faults.jsonl}\n")
    assert run(["plan", "bad.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "wrong" in said and "'completion'" in said and "faults.jsonl:" in said


def test_without_a_model_the_embedded_tokenizer_is_used_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "completions.jsonl"]) == 0
    assert "the embedded base's tokenizer: --model names another" in capsys.readouterr().out


def test_torch_is_not_imported(place: Path) -> None:
    """Neither with a plain tokenizer nor with one of AutoTokenizer's, nor for a mask that trl's templates make."""
    (place / "other").mkdir(exist_ok=True)
    for file in (place / "base").iterdir():
        (place / "other" / file.name).write_bytes(file.read_bytes())
    (place / "other" / "config.json").write_text('{"model_type": "mistral"}')
    code = (
        "import sys\nfrom tuner.cli import run\n"
        "one = run(['data', 'messages.jsonl', '--model', 'base'])\n"
        "two = run(['data', 'messages.jsonl', '--model', 'other', '--set', 'data.assistant_only_loss=true'])\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'ray')], one, two)"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(place)}
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[] 0 0", done.stdout + done.stderr


def test_the_name_of_a_run_has_its_settings(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tuner.config import load_experiment
    from tuner.driver.resolved_settings import write_settings
    from tuner.results.folder import create_run

    (place / "run.yaml").write_text(
        "model: {model_name_or_path: base}\ndata: {train: messages.jsonl, max_length: 40, assistant_only_loss: true}\n"
    )
    folder = create_run(place / "runs", "first", 0)
    write_settings(folder, load_experiment(place / "run.yaml"))
    folder.ledger.touch()
    for name in ("first", str(folder.path)):
        assert run(["data", name, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["limit"] == 40 and told["sets"][0]["source"] == str(place / "messages.jsonl")
        assert "assistant" in told["facts"]["learns"]
    assert run(["data", "first", "--set", "data.max_length=50"]) == 2
    assert "a run keeps its settings" in capsys.readouterr().err
    assert run(["data", "firts"]) == 2
    assert "first" in capsys.readouterr().err


def test_a_tokenizer_with_code_of_its_own_is_not_run_unasked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the file trusts it: `data` only looks. With --trust-remote-code on the command line it may run."""
    from trainables.data import tokenizers

    seen = []
    real = tokenizers.load

    def load(model: Any, data: Any = None, *, alone: bool = False) -> Any:
        seen.append((model.trust_remote_code, alone))
        return real(model, data, alone=alone)

    monkeypatch.setattr(tokenizers, "load", load)
    written = "model: {model_name_or_path: base, trust_remote_code: true, model_revision: main}\n"
    (place / "trusting.yaml").write_text(f"{written}data: {{train: texts.jsonl}}\n")
    assert run(["data", "trusting.yaml", "--rows", "0"]) == 0
    assert run(["data", "trusting.yaml", "--rows", "0", "--trust-remote-code"]) == 0
    assert seen == [(False, True), (True, True)], "and the base is not downloaded"
    capsys.readouterr()
