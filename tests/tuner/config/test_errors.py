"""The exact text of configuration errors. `TUNER_UPDATE_GOLDEN=1` writes it again; read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tuner.config.test_experiment import MINIMAL, SPACE
from tuner.config import load_experiment
from tuner.contract import InputError
from tuner.space import experiment_space

GOLDEN = Path(__file__).parents[2] / "golden" / "config_errors.txt"

ROOT = Path(__file__).parents[3]

Case = tuple[str, str, list[str], dict[str, object]]


def with_space(text: str) -> str:
    return MINIMAL.replace(SPACE, "space.yaml") + f"# space.yaml:\n{text}"


CASES: list[Case] = [
    ("a key misspelt", MINIMAL + "train:\n  leaning_rate: 1e-3\n", [], {}),
    ("a key nobody knows", MINIMAL + "train:\n  qqq: 1\n", [], {}),
    ("a key of another section", MINIMAL + "train:\n  max_length: 512\n", [], {}),
    ("a section misspelt", MINIMAL + "trian: {lora_r: 8}\n", [], {}),
    ("a key without its section", MINIMAL, ["learning_rate=1e-3"], {}),
    ("text for a number, in a file", MINIMAL + "train:\n  lora_r: many\n", [], {}),
    ("text for a number, by --set", MINIMAL, ["train.lora_r=many"], {}),
    ("a number out of bounds, by flag", MINIMAL, [], {"search.num_trials": 0}),
    ("yes is not true", MINIMAL + "train:\n  use_dora: yes\n", [], {}),
    ("a choice misspelt", MINIMAL + "train: {lora_alpha_mode: rslore}\n", [], {}),
    ("a kind misspelt", MINIMAL, ["search.sampler.kind=tpa"], {}),
    ("a kind misspelt as a bare word", MINIMAL, ["model.quantization=nf8"], {}),
    ("an option of another kind", MINIMAL, ["search.sampler={kind: random, n_startup_trials: 3}"], {}),
    ("a section that is no section", MINIMAL + "train: 5\n", [], {}),
    ("something missing", MINIMAL.replace("{train: org/rows}", "{max_length: 64}"), [], {}),
    ("no data at all", MINIMAL.replace("data: {train: org/rows}", ""), [], {}),
    ("two settings against each other", MINIMAL + "train: {max_steps: 5, num_train_epochs: 1.0}\n", [], {}),
    ("a name that leaves the storage path", MINIMAL, [], {"run.name": "../evil"}),
    ("data that is not there", MINIMAL, [], {"data.train": "rowz.jsonl"}),
    ("a base that is not there", MINIMAL.replace("org/name", "./base"), [], {}),
    ("the grace period", MINIMAL + "train: {max_steps: 9}\nscheduler: {grace_period: 10}\n", [], {}),
    ("a key that has moved, by --set", MINIMAL, ["run.gpus_per_trial=2"], {}),
    ("a key that has moved, in a file", MINIMAL + "scheduler:\n  strategy: fsdp\n", ["scheduler=none"], {}),
    ("a share of two GPUs", MINIMAL, [], {"resources.gpus_per_trial": 1.5}),
    ("two GPUs for three processes", MINIMAL + "resources: {gpus_per_trial: 2, workers_per_trial: 3}\n", [], {}),
    ("packed on several GPUs", MINIMAL + "resources: {gpus_per_trial: 2, trials_per_gpu: 4}\n", [], {}),
    ("a base shared out to one", MINIMAL, ["resources.strategy=fsdp"], {}),
    ("no assignment", MINIMAL, ["train.lora_r"], {}),
    ("a program that is not there", MINIMAL.replace("Tiny", "Tony"), [], {}),
    ("duplicate keys", MINIMAL + "data: {train: org/other}\n", [], {}),
    (
        "several at once",
        MINIMAL + "train:\n  lora_r: 0\n  eval_steps: often\n  use_dorra: true\nrum: {}\n",
        ["search.num_trials=few"],
        {},
    ),
    ("a shipped space misspelt", MINIMAL, [], {"search.space": "qlorra"}),
    ("a space file that is not there", MINIMAL, [], {"search.space": "spade.yaml"}),
    ("a function that is not there", MINIMAL, [], {"search.space": "tests.tuner.space.functions:nothing"}),
    ("a parameter misspelt", with_space("parameters:\n  leaning_rate: {type: float, low: 1, high: 2}\n"), [], {}),
    (
        "a parameter that changes the loss",
        with_space("parameters:\n  max_length: {type: int, low: 1, high: 2}\n"),
        [],
        {},
    ),
    ("a range upside down", with_space("parameters:\n  learning_rate: {type: float, low: 1e-2, high: 1e-3}\n"), [], {}),
    (
        "log from zero",
        with_space("parameters:\n  learning_rate: {type: float, low: 0, high: 1e-3, log: true}\n"),
        [],
        {},
    ),
    ("a range without its end", with_space("parameters:\n  learning_rate: {type: float, low: 1e-3}\n"), [], {}),
    (
        "a range that is text",
        with_space("parameters:\n  lora_r:\n    type: int\n    low: a few\n    high: 8\n"),
        [],
        {},
    ),
    ("a key of a parameter misspelt", with_space("parameters:\n  lora_r: {type: int, low: 2, hihg: 8}\n"), [], {}),
    ("a type misspelt", with_space("parameters:\n  lora_r: {type: integer, low: 2, high: 8}\n"), [], {}),
    ("a range beyond the program's", with_space("parameters:\n  lora_r: {type: int, low: 0, high: 8}\n"), [], {}),
    ("a choice twice", with_space("parameters:\n  lora_r: {type: choice, values: [8, 8.0]}\n"), [], {}),
    ("no choice", with_space("parameters:\n  lora_r: {type: choice, values: []}\n"), [], {}),
    (
        "a choice that the program does not know",
        with_space("parameters:\n  lora_alpha_mode: {type: choice, values: [fixed, 3r]}\n"),
        [],
        {},
    ),
    (
        "a word that reads as a boolean, in a space",
        with_space("parameters:\n  init_lora_weights: {type: choice, values: [gaussian, true]}\n"),
        [],
        {},
    ),
    ("a word that reads as a boolean", MINIMAL, ["train.init_lora_weights=true"], {}),
    (
        "a choice that the settings refuse",
        with_space("parameters:\n  lora_r: {type: choice, values: [8, sixteen]}\n"),
        [],
        {},
    ),
    (
        "a combination that the settings refuse",
        with_space(
            "settings: {model.quantization: nf4}\n"
            "parameters:\n"
            "  lora_r: {type: choice, values: [4, 8]}\n"
            "  use_dora: {type: choice, values: [false, true]}\n"
            "  learning_rate: {type: float, low: 1e-4, high: 1e-3}\n"
        ),
        [],
        {},
    ),
    (
        "a condition on nothing",
        with_space("parameters:\n  use_dora: {type: choice, values: [true, false], when: {lora_r: 8}}\n"),
        [],
        {},
    ),
    (
        "a condition that never holds",
        with_space(
            "parameters:\n"
            "  lora_r: {type: choice, values: [4, 8]}\n"
            "  use_dora: {type: choice, values: [true, false], when: {lora_r: [8, 16]}}\n"
        ),
        [],
        {},
    ),
    (
        "conditions in a circle",
        with_space(
            "parameters:\n"
            "  lora_r: {type: choice, values: [4, 8], when: {use_dora: true}}\n"
            "  use_dora: {type: choice, values: [true, false], when: {lora_r: 8}}\n"
        ),
        [],
        {},
    ),
    ("a space of the standard library", MINIMAL.replace(SPACE, "http.server:test"), [], {}),
    ("a space of nowhere", MINIMAL.replace(SPACE, "spaces:mine"), [], {}),
    ("a space that is no name", MINIMAL.replace(SPACE, '"os:system(1)"'), [], {}),
    ("a program of the standard library", MINIMAL, [], {"run.program": "subprocess:Popen"}),
    ("nothing to search", with_space("parameters: {}\n"), [], {}),
    ("parameters without their heading", with_space("lora_r: {type: int, low: 2, high: 8}\n"), [], {}),
    ("a grid over a range", MINIMAL, ["search.sampler=grid"], {}),
]


def message(case: Case, folder: Path) -> str:
    _, text, overrides, flags = case
    text, _, space = text.partition("# space.yaml:\n")
    (folder / "search.yaml").write_text(text)
    (folder / "space.yaml").write_text(space)
    with pytest.raises(InputError) as refused:
        experiment_space(load_experiment(Path("search.yaml"), overrides, flags))
    return str(refused.value).replace(str(folder), "/folder").replace(str(ROOT), "/tuner")


def test_every_error_has_exactly_these_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    text = "\n".join(f"# {case[0]}\n{message(case, tmp_path)}\n" for case in CASES)
    if os.environ.get("TUNER_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
