"""What a submission sends: the exact job, the files in it, and those that are left out."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.report import golden
from tuner.cli import run
from tuner.cluster.parcel import Parcel, pack
from tuner.cluster.payload import make_payload, write_zip
from tuner.config import load_experiment
from tuner.config.document import parse_value
from tuner.contract import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a search file, data beside it and elsewhere, and files that must not be sent."""
    home = tmp_path / "home"
    (home / "rows" / ".git").mkdir(parents=True)
    (home / "rows" / "__pycache__").mkdir()
    for place in ("rows/train.jsonl", "rows/.git/config", "rows/__pycache__/x.pyc", "rows/.env"):
        (home / place).write_text('{"text": "a"}\n')
    (tmp_path / "validation.jsonl").write_text('{"text": "b"}\n')
    (home / "space.yaml").write_text("parameters: {learning_rate: {type: float, low: 1.0e-5, high: 1.0, log: true}}\n")
    settings = {
        "model": {"model_name_or_path": "/shared/models/base"},
        "data": {"train": "rows", "validation": "../validation.jsonl"},
        "train": {"max_steps": 10},
        "search": {"space": "space.yaml", "num_trials": 4},
        "run": {"name": "first", "storage_path": "/shared/runs"},
    }
    (home / "search.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(home)
    return home


def _masked(told: dict[str, Any]) -> str:
    """The text without what every change of the code changes: the package's name and sizes."""
    told["request"]["runtime_env"]["working_dir"] = re.sub(
        r"_[0-9a-f]{16,}", "_HASH", told["request"]["runtime_env"]["working_dir"]
    )
    places = told["parcel"]["places"]
    for name in places.keys() & {"tuner", "trainables", "search_spaces", "tests/programs"}:
        places[name] = "BYTES"
    told["parcel"]["bytes"] = "BYTES"
    return json.dumps(told, indent=2) + "\n"


def _dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["submit", "--dry-run", *arguments]) == 0
    return _masked(json.loads(capsys.readouterr().out))


def test_the_exact_payload(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden.check(
        "submit_payload.txt",
        {
            "a search file": _dry_run(capsys, "search.yaml"),
            "flags and files of their own": _dry_run(
                capsys, "search.yaml", "--set", "train.learning_rate=1e-3", "--validation", "rows/train.jsonl",
                "--name", "second", "--storage-path", "s3://bucket/runs", "--trust-remote-code",
                "--model-revision", "abc", "--include", "space.yaml",
            ),
            "the embedded example": _dry_run(capsys, "--storage-path", "/shared/runs", "--name", "demo"),
            "a program of the user's": _dry_run(
                capsys, "--program", "tests.programs.toy:Toy", "--storage-path", "/shared/runs", "--name", "toy",
                "--set", "search.space={parameters: {learning_rate: {type: float, low: 1e-5, high: 1.0}}}",
            ),
            "a resume": _dry_run(
                capsys, "--resume", "first", "--storage-path", "/shared/runs", "--num-trials", "64"
            ),
        },
    )  # fmt: skip


def test_equal_contents_are_one_file(folder: Path, tmp_path: Path) -> None:
    parcel = pack(load_experiment(folder / "search.yaml", elsewhere=True))
    for name in ("a.zip", "b.zip"):
        write_zip(parcel, tmp_path / name)
        (folder / "rows" / "train.jsonl").touch()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert "search/rows/train.jsonl" in names and "tuner/cli/submit.py" in names and "trainables/sft.py" in names
    assert not [name for name in names if "/." in name or "__pycache__" in name]


def test_what_was_sent_means_there_what_it_meant_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parcel laid out in another folder, and the job's own command line read there."""
    from tuner.cli.search import command

    here = load_experiment(folder / "search.yaml", ["data.train=rows/train.jsonl"], elsewhere=True)
    parcel = pack(here, packages=())
    payload = make_payload(here, parcel, name="first", overrides=["data.train=rows/train.jsonl"])
    there = _laid_out(parcel, tmp_path / "there")
    monkeypatch.chdir(there)
    context = command.make_context("search", payload.entrypoint.split()[4:])
    file, overrides = context.params["file"], context.params["overrides"]
    found = load_experiment(file, overrides, elsewhere=True)
    data, moved = here.settings.model_dump()["data"], found.settings.model_dump()["data"]
    for key in ("train", "validation"):
        assert Path(moved[key]).is_relative_to(there)
        assert Path(moved[key]).read_bytes() == Path(data[key]).read_bytes()
    assert found.settings.model_dump()["model"] == here.settings.model_dump()["model"]
    assert found.space.data == here.space.data
    assert context.params["run__storage_path"] == "/shared/runs" and context.params["run__name"] == "first"


SEVERAL = {
    "a pattern": ("rows/*.jsonl", None, ["1.jsonl", "2.jsonl", "train.jsonl"]),
    "a pattern at any depth": ("rows/**/*.jsonl", None, ["1.jsonl", "2.jsonl", "3.jsonl", "train.jsonl"]),
    "a list": (["rows/2.jsonl", "rows/1.jsonl"], None, ["2.jsonl", "1.jsonl"]),
    "a list of a folder, a pattern and a file elsewhere": (
        ["rows/deep", "rows/[12].jsonl", "../validation.jsonl"], None,
        ["3.jsonl", "1.jsonl", "2.jsonl", "validation.jsonl"],
    ),
    "a pattern elsewhere": ("../vali*.jsonl", None, ["validation.jsonl"]),
    "a pattern in a flag": ("rows/train.jsonl", ["data.train=rows/[12].jsonl"], ["1.jsonl", "2.jsonl"]),
    "a list in a flag": ("rows/train.jsonl", ["data.train=[rows/2.jsonl, rows/1.jsonl]"], ["2.jsonl", "1.jsonl"]),
}  # fmt: skip


@pytest.mark.parametrize(("train", "overrides", "expected"), SEVERAL.values(), ids=SEVERAL)
def test_patterns_and_lists_are_sent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Any, overrides: Any, expected: list[str]
) -> None:
    """The rows that the job reads in its own folder, once the ones of this machine are gone, are those that would be
    read here, in the same order."""
    from trainables.data import reading
    from tuner.cli.search import command

    (folder / "rows" / "deep").mkdir()
    for place in ("1.jsonl", "2.jsonl", "deep/3.jsonl", "notes.md"):
        (folder / "rows" / place).write_text(json.dumps({"text": place}) + "\n")
    settings = yaml.safe_load((folder / "search.yaml").read_text())
    settings["data"] = {"train": train}
    (folder / "search.yaml").write_text(yaml.safe_dump(settings))
    here = load_experiment(folder / "search.yaml", overrides or (), elsewhere=True)
    wanted = list(reading.read(here.settings.data.train, here.settings.data).rows)
    parcel = pack(here, packages=())
    assert not any("notes" in str(place) or ".git" in str(place) for place, _ in parcel.files())
    payload = make_payload(here, parcel, name="first", overrides=overrides or ())
    there = _laid_out(parcel, tmp_path / "there")
    folder.rename(tmp_path / "gone")
    (tmp_path / "validation.jsonl").unlink()
    monkeypatch.chdir(there)
    context = command.make_context("search", shlex.split(payload.entrypoint)[4:])
    found = load_experiment(context.params["file"], context.params["overrides"], elsewhere=True)
    rows = reading.read(found.settings.data.train, found.settings.data)
    assert list(rows.rows) == wanted
    assert [Path(part.source).name for part in rows.parts] == expected


def test_an_absolute_pattern_is_the_clusters(folder: Path) -> None:
    here = load_experiment(folder / "search.yaml", ["data.train=[/shared/rows/*.jsonl, org/rows]"], elsewhere=True)
    assert "data.train" not in here.files
    assert here.settings.data.train == ("/shared/rows/*.jsonl", "org/rows")


def _pictured(folder: Path, names: list[Any]) -> None:
    """Rows with pictures, and the pictures that are files below the folder of the rows."""
    from PIL import Image

    rows = []
    for index, name in enumerate(names):
        if isinstance(name, str) and not name.startswith(("http", "/", "..", "missing")):
            (folder / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8 + index)).save(folder / "rows" / name, "PNG")
        turns = [{"role": "user", "content": f"what is {index}"}, {"role": "assistant", "content": "a"}]
        rows.append({"messages": turns, "images": [name]})
    (folder / "rows" / "pictured.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("train", ["rows/pictured.jsonl", "rows", "rows/pict*.jsonl"])
@pytest.mark.parametrize("flag", [True, False])
def test_pictures_are_sent_with_the_rows_that_name_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: str, flag: bool
) -> None:
    """The job reads the same pictures in its own folder, once the ones of this machine are gone."""
    from trainables.data import reading
    from trainables.images.reading import ImageReader
    from tuner.cli.search import command

    (folder / "rows" / "train.jsonl").unlink()
    names = ["pictures/a.png", "b.png", "http://example.org/c.png", "pictures/../d.png", "pictures/a.png"]
    _pictured(folder, names)
    (folder / "rows" / "pictures" / "other.png").write_bytes(b"not named")
    settings = yaml.safe_load((folder / "search.yaml").read_text())
    settings["data"] = {"train": "/shared/rows.jsonl" if flag else train}
    (folder / "search.yaml").write_text(yaml.safe_dump(settings))
    overrides = [f"data.train={train}"] if flag else []
    here = load_experiment(folder / "search.yaml", overrides, elsewhere=True)
    local = [names[0], names[1], names[3]]
    wanted = [(folder / "rows" / name).read_bytes() for name in local]
    parcel = pack(here, packages=())
    sent = [str(place) for place, _ in parcel.files()]
    assert len(sent) == len(set(sent)) and (train == "rows") == any("other.png" in place for place in sent)
    payload = make_payload(here, parcel, name="first", overrides=overrides)
    there = _laid_out(parcel, tmp_path / "there")
    folder.rename(tmp_path / "gone")
    monkeypatch.chdir(there)
    context = command.make_context("search", shlex.split(payload.entrypoint)[4:])
    data = load_experiment(context.params["file"], context.params["overrides"], elsewhere=True).settings.data
    rows = reading.read(data.train, data)
    reader = ImageReader(data)
    assert [reader.place(name, rows.source_of(0)).read_bytes() for name in local] == wanted


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.png", "the image missing.png is not in"),
        ("../validation.jsonl", "lies outside of"),
        ("/shared/a.png", "the image /shared/a.png is an absolute path, and would be looked for on the cluster"),
    ],
)
def test_pictures_that_cannot_be_sent_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    _pictured(folder, ["a.png", name])
    asked = ["submit", "--dry-run", "search.yaml", "--data", "rows/pictured.jsonl"]
    assert run(asked) == 2
    error = capsys.readouterr().err
    assert told in error and "pictured.jsonl:2" in error and "data.image_folder" in error


def test_pictures_of_rows_that_are_left_out_are_not_sent(folder: Path) -> None:
    _pictured(folder, ["a.png", "missing.png"])
    given = ["data.train=rows/pictured.jsonl", "data.on_bad_row=drop"]
    places = [str(place) for place, _ in pack(load_experiment(folder / "search.yaml", given, elsewhere=True)).files()]
    assert [place for place in places if place.endswith(".png")] == ["files/data.train/a.png"]
    elsewhere = load_experiment(folder / "search.yaml", [*given, "data.image_folder=/shared/pictures"], elsewhere=True)
    assert not any(str(place).endswith(".png") for place, _ in pack(elsewhere).files())


def test_a_folder_of_pictures_is_sent(folder: Path) -> None:
    _pictured(folder, ["a.png"])
    given = ["data.train=rows/pictured.jsonl", "data.image_folder=rows"]
    experiment = load_experiment(folder / "search.yaml", given, elsewhere=True)
    assert "files/data.image_folder/rows/a.png" in [str(place) for place, _ in pack(experiment).files()]


def _laid_out(parcel: Parcel, folder: Path) -> Path:
    write_zip(parcel, folder.with_suffix(".zip"))
    zipfile.ZipFile(folder.with_suffix(".zip")).extractall(folder)
    return folder


def test_what_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(folder / "search.yaml", elsewhere=True)
    with (folder / "rows" / "train.jsonl").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(InputError, match="MiB would travel") as refused:
        pack(experiment)
    assert refused.value.where == str(folder / "rows")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["search.yaml", "--storage-path", "runs"], "'runs' is a relative path"),
        (["search.yaml", "--data", "rows/tarin.jsonl"], "no file or folder"),
        (["search.yaml", "--data", "rows/*.parquet"], "no file matches"),
        (["search.yaml", "--include", "nowhere"], "no such file or folder"),
        (["search.yaml", "--num-trials", "0"], "search.num_trials"),
        (["--resume", "first", "--set", "a.b=1"], "--set would change them"),
    ],
)
def test_bad_input_is_found_here(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(["submit", "--dry-run", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_without_an_address(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert run(["submit", "search.yaml"]) == 2
    assert "no cluster to submit to" in capsys.readouterr().err


@pytest.mark.parametrize("begins", [["search.yaml"], ["--resume", "first"]])
def test_a_budget_is_the_same_on_the_cluster(
    folder: Path, begins: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["tokens=20M", "wall_time=1h 30min", "until={gain_below: 0.5%, next: 9}"]
    words = [word for one in given for word in ("--budget", one)]
    told = json.loads(_dry_run(capsys, *begins, *words, "--storage-path", "/shared/runs"))
    sent = shlex.split(told["request"]["entrypoint"])
    there = [sent[at + 1] for at, word in enumerate(sent) if word == "--budget"]
    keys = [one.partition("=")[0] for one in there]
    read = {key: parse_value(one.partition("=")[2], "") for key, one in zip(keys, there, strict=True)}
    assert read == {"tokens": "20M", "wall_time": "1h 30min", "until": {"gain_below": "0.5%", "next": 9}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--budget", "20M"], "'20M' is not KEY=AMOUNT, as in tokens=20M"),
        (["--budget", "tokens=1M", "--budget", "tokens=2M"], "--budget tokens is given twice"),
        (["--budget", "token=1M"], "unknown key `token` in `search.budget`; did you mean `tokens`?"),
        (["--budget", "tokens=many"], "search.budget.tokens: got 'many'"),
    ],
)
def test_a_budget_that_is_none(folder: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "search.yaml", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == "" and "--budget" in captured.err
