"""The documents are true: maps, references and links have targets, and what a reader may type or copy works.

torch-free and quick: commands are planned and not run, Python that only reads a run folder is run.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.chaos.runs import finished_run
from tuner.cli import COMMANDS, cli, run
from tuner.config import Experiment
from tuner.driver.ending import Outcome
from tuner.driver.plan import make_plan
from tuner.results.folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(
    init.parent for top in ("tuner", "trainables") for init in (ROOT / top).rglob("__init__.py") if init.stat().st_size
)
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tuner" / "demo" / "README.md"]
_TEST_FILE = r"(?:[\w/]+/)?test_\w+\.py"


def named_in(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_packages_docstring_names_every_file_of_it(package: Path) -> None:
    modules = {p.stem for p in package.glob("*.py") if not p.stem.startswith("__")}
    folders = {p.parent.name for p in package.glob("*/__init__.py")}
    text = named_in(package)
    words = set(re.findall(r"[\w]+", text))
    assert sorted((modules | folders) - words) == [], "not on the map"
    dead = {name for name in re.findall(r"^(\w+)(?:\.py|/)", text, re.MULTILINE) if not _is_there(package, name)}
    assert not dead, "on the map and not there"


def _is_there(package: Path, name: str) -> bool:
    return (package / f"{name}.py").exists() or (package / name).is_dir()


def test_every_test_that_a_document_names_is_in_the_tree() -> None:
    """`path::test`, and `::test` of the last path before it; `tests/` is left out of the paths."""
    dead, seen = [], 0
    for document in DOCUMENTS:
        file = ""
        for path, test in re.findall(rf"`(?:tests/)?({_TEST_FILE})?(?:::(\w+))?`", document.read_text("utf-8")):
            if not path and not test:
                continue
            file, seen = path or file, seen + 1
            place = ROOT / "tests" / file
            if not place.is_file() or (test and f"def {test}(" not in place.read_text("utf-8")):
                dead.append(f"{document.name}: {file}::{test}")
    assert dead == []
    assert seen > 100


EXAMPLES = {"parabola.py", "target.py", "my_space.py", "contextlib.py", "median.py", "convert_lora_to_gguf.py"}
EXAMPLES |= {"convert_hf_to_gguf.py"}
"""Files that a reader makes, or that are not part of this project."""


def test_every_source_file_that_a_document_names_is_in_the_tree() -> None:
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    there = [f"/{p.relative_to(ROOT)}" for folder in folders for end in ("py", "sh") for p in folder.rglob(f"*.{end}")]
    dead = []
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        names = re.findall(r"`([\w/.-]+\.(?:py|sh))(?:::\w+)?`|\b(scripts/\w+\.(?:py|sh))", text)
        for name in {one or other for one, other in names}:
            if Path(name).name not in EXAMPLES and not any(path.endswith(f"/{name}") for path in there):
                dead.append(f"{document.name}: {name}")
    assert dead == []


def test_the_architectures_layers_are_those_that_are_held() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("\n## Layers\n")[2].partition("\n## ")[0]
    fences = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shown = [[set(layer.split(" | ")) for layer in fence.splitlines()] for fence in fences]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    held = [[set(layer.replace("tuner.", "").split(" | ")) for layer in contract] for contract in layers]
    assert shown == held


def test_the_architectures_tree_is_the_tree() -> None:
    """Every file and folder in it is there, and all that lies directly in `tuner` and `trainables` is in it."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("\n## The tree\n")[2].partition("```\n")[2]
    tree = text.partition("```")[0]
    parents = [ROOT]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if depth > 3:  # the words of the line before go on
            continue
        names = re.match(r"\s*((?:[\w.]+/?(?:, )?)+)", line)
        assert names is not None, line
        for name in names[1].split(", "):
            assert (parents[depth] / name).exists(), f"{parents[depth] / name} is not there"
        parents[depth + 1 :] = [parents[depth] / names[1]]
    named = set(re.findall(r"[\w.]+", tree))
    for top in (ROOT / "tuner", ROOT / "trainables"):
        there = {p.name for p in top.iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
        assert there - named - {"__init__.py"} == set(), "not in the tree"


# Links


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(document.read_text("utf-8")), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        times = sum(known == anchor or known.startswith(f"{anchor}-") for known in found)
        found.add(f"{anchor}-{times}" if anchor in found else anchor)
    return found


def without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text("utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path) if path else document
        if not place.exists() or (anchor and anchor not in anchors(place)):
            dead.append(target)
    assert dead == []


def test_every_guide_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [guide.name for guide in GUIDES[1:] if f"(docs/{guide.name})" not in text] == []
    assert text.count("\n") <= 125, "the README has at most three screens"


# What a reader may type or copy


class Block(NamedTuple):
    """A fenced block of a document. name: the file that its first line names, "" for none."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        named = re.match(r"# ([\w./-]+\.(?:yaml|py))\n", self.text)
        return named[1] if named else ""

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(documents: list[Path], *languages: str) -> list[Block]:
    found = []
    for document in documents:
        text = document.read_text("utf-8")
        for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(document, line, fence[1], fence[2]))
    return [block for block in found if not languages or block.language in languages]


def commands(documents: list[Path]) -> list[tuple[str, list[str]]]:
    """Every command of the documents' shell blocks, up to a pipe or a redirection, with its place."""
    found = []
    for block in blocks(documents, "sh", ""):
        for line in block.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
            lexer.commenters, lexer.whitespace_split = "#", True
            try:
                words = list(lexer)
            except ValueError:  # no command: a text with an apostrophe
                continue
            cut = next((i for i, word in enumerate(words) if word in ("|", ">")), len(words))
            found.append((str(block), words[:cut]))
    return found


TUNER = [(place, words[3:]) for place, words in commands(DOCUMENTS) if words[:3] == ["python", "-m", "tuner"]]
QUIET = ("search", "train", "plan", "spaces", "submit", "status", "show")
"""Commands that can be carried out here without starting anything, or planned."""
PLANNED = {
    shlex.join(words): words
    for place, words in TUNER
    if words[0] in QUIET and not place.startswith("CONTRIBUTING") and "--resume" not in words
}


def test_blocks_say_what_they_are() -> None:
    assert [str(block) for block in blocks(GUIDES) if block.language not in ("sh", "yaml", "python", "text")] == []


def test_every_command_is_understood() -> None:
    """Its options are those of the command; `make` and scripts name what is there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for place, words in commands(DOCUMENTS):
        if words[:1] == ["make"]:
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), place
        for script in (word for word in words[:2] if re.fullmatch(r"scripts/\w+\.(?:sh|py)", word)):
            assert (ROOT / script).is_file(), place
    assert len(TUNER) > 40
    for place, words in TUNER:
        command = cli.get_command(None, words[0])  # type: ignore[arg-type]
        assert command is not None, (place, words)
        command.make_context(words[0], words[1:])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the documents name: `my_search.yaml`, rows, a space, and a run `first`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text('{"text": "one row"}\n', "utf-8")
    for block in reversed(blocks(GUIDES, "yaml", "python")):  # of two files with one name the README's stays
        if block.name:
            (tmp_path / block.name).write_text(block.text, "utf-8")
    (tmp_path / "all.jsonl").write_text('{"text": "one row"}\n', "utf-8")
    first = finished_run(tmp_path / "runs")
    text = (tmp_path / "my_search.yaml").read_text("utf-8").replace(" train.jsonl", f" {tmp_path / 'train.jsonl'}")
    (first / "best" / "train.yaml").write_text(text, "utf-8")
    return tmp_path


def in_words(words: list[str]) -> list[str]:
    """The command that is run in place of a document's: its plan, what it would send, or itself where it only reads."""
    if words[0] == "search":
        return ["plan", *(word for word in words[1:] if word not in ("--events", "--plain", "--or-resume"))]
    if words[0] == "submit" and not {"--kuberay", "--slurm"} & set(words):
        return [*words, "--dry-run"]
    return words


def planned(experiment: Experiment, *_: Any, **__: Any) -> Outcome:
    """In place of a search that `train` would run: its plan, and the end of another."""
    print(make_plan(experiment).notes)
    first = RunFolder(Path("runs", "first").resolve())
    return Outcome(first.record(), first.path, 0)


@pytest.mark.parametrize("words", PLANNED.values(), ids=PLANNED)
def test_every_command_that_starts_nothing_does_what_it_says(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.driver.session.run_search", planned)
    if words[0] in ("status", "show") and {"--address", "--storage-path"} & set(words):
        pytest.skip("reads a cluster or a store")
    assert run(in_words(words)) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


@pytest.mark.parametrize("block", blocks(GUIDES, "yaml"), ids=str)
def test_every_yaml_example_is_planned(block: Block, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "example.yaml").write_text(block.text, "utf-8")
    given = ["--model", "org/base", "--data", "train.jsonl"]
    if re.search(r"^parameters:", block.text, re.MULTILINE):
        assert run(["spaces", "example.yaml"]) == 0, capsys.readouterr().err
        assert run(["plan", *given, "--space", "example.yaml"]) == 0, capsys.readouterr().err
    else:
        alone = re.search(r"^model:", block.text, re.MULTILINE)
        assert run(["plan", "example.yaml", *([] if alone else given)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", blocks(GUIDES, "python"), ids=str)
def test_every_python_example_works(
    block: Block, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that read a run are run; of the others, what they import of tuner is there."""
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tuner"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
    if "peft" in block.text or "import search" in block.text or "def space" in block.text:
        return
    if "study.journal" in block.text:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend("runs/first/study.journal"))
        optuna.create_study(study_name="first", storage=storage)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runpy.run_path(block.name)
    assert capsys.readouterr().out or "print(" not in block.text


# Tables and lists that say what the code has


def rows(document: str, heading: str) -> dict[str, str]:
    """The rows of the first table under a heading, by their first cell."""
    text = (ROOT / "docs" / document).read_text("utf-8").partition(f"\n## {heading}\n")[2]
    table = re.search(r"^\| (?!---).*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    return {cells[1].strip(): "|".join(cells[2:]) for cells in (row.split("|") for row in table[0].splitlines()[2:])}


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_tables_name_every_command_ending_event_and_parameter() -> None:
    from trainables.settings.searchable import PARAMETERS
    from tuner.contract import Reason
    from tuner.results.ledger import Kind

    told = {name.split()[0] for cell in rows("running-a-search.md", "Commands") for name in quoted(cell)}
    assert told == set(COMMANDS)
    endings = (ROOT / "docs" / "stopping-and-judging.md").read_text("utf-8")
    reasons = {str(reason) for reason in Reason if reason is not Reason.SEARCH}  # of the counts, and of no ending
    assert set(re.findall(r"^\| `\w+` \| `(\w+)` \|", endings, re.MULTILINE)) == reasons
    events = {name for cell in rows("python-and-json.md", "The ledger") for name in quoted(cell)}
    assert events == {str(kind) for kind in Kind}
    spaces = (ROOT / "docs" / "search-spaces.md").read_text("utf-8")
    assert quoted(spaces.partition("\nSearchable are ")[2].partition("\n\n")[0]) == list(PARAMETERS)


def test_the_table_of_json_names_every_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "python-and-json.md").read_text("utf-8")
    row = quoted(text.partition("\nA row of the leaderboard has ")[2].partition(".")[0])
    said = {cell: quoted(rest) for cell, rest in rows("python-and-json.md", "Commands with `--json`").items()}

    def keys(*words: str) -> set[str]:
        assert run([*words, "--json"]) == 0
        return set(json.loads(capsys.readouterr().out))

    search = set(next(names for cell, names in said.items() if cell.startswith("`search`"))) - {
        "params", "trial", "eval_loss", "metrics",
    }  # fmt: skip
    assert keys("status", "first") == search | set(said["`status`"]) - {"search"}
    assert keys("show", "first", "1") == {*row, *said["`show`"]}
    assert keys("plan", "my_search.yaml") == set(said["`plan`"])
    assert keys("data") == set(said["`data`"])
    assert run(["status", "first", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["leaderboard"][0]) == set(row)


# The reference of the search file


def written() -> str:
    spec = importlib.util.spec_from_file_location("make_search_file", ROOT / "scripts" / "make_search_file.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.reference()
    return text


def test_the_reference_of_the_search_file_is_what_the_schema_says() -> None:
    """`make golden`, or scripts/make_search_file.py, writes it anew."""
    place, text = ROOT / "docs" / "search-file.md", written()
    if os.environ.get("TUNER_UPDATE_GOLDEN"):
        place.write_text(text, encoding="utf-8")
    assert text == place.read_text("utf-8")


def test_the_reference_has_a_row_for_every_key_and_the_defaults(folder: Path) -> None:
    from trainables.sft import SFT
    from tuner.config import dump_resolved, experiment_schema, load_experiment
    from tuner.config.words import key_paths

    text = written()
    for key in key_paths(experiment_schema(SFT)):
        assert key[-1] == "kind" or f"\n| `{key[-1]}` | " in text or f"\n## `{key[0]}`" in text, key
    block = next(b for b in blocks([ROOT / "docs" / "search-file.md"], "yaml"))
    (folder / "all.yaml").write_text(block.text, "utf-8")
    (folder / "least.yaml").write_text("model: {model_name_or_path: Qwen/Qwen3-8B}\ndata: {train: train.jsonl}\n")
    every, least = (dump_resolved(load_experiment(folder / name)) for name in ("all.yaml", "least.yaml"))
    assert every == least
