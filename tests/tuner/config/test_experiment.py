"""Files, overrides and flags make an experiment: precedence, paths, and checks between sections."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuner.config.programs import Nf4, Tiny
from tuner.config import FLAGS, Asha, NoScheduler, dump_resolved, experiment_schema, load_experiment, load_resolved
from tuner.config.moved import MOVED
from tuner.config.sections import Resources
from tuner.config.space_source import shipped_spaces
from tuner.config.words import dotted, path_keys
from tuner.contract import InputError

BEFORE_RESOURCES = Path(__file__).parent / "before_resources"
PROGRAM = "tests.tuner.config.programs:Tiny"
SPACE = "{parameters: {learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}}}"
MINIMAL = f"""\
model: {{model_name_or_path: org/name}}
data: {{train: org/rows}}
search: {{space: {SPACE}}}
run: {{program: "{PROGRAM}"}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "search.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults(here: Path) -> None:
    experiment = load_experiment(write(here, MINIMAL))
    assert issubclass(experiment.program_class, Tiny)
    assert experiment.settings.train.lora_r == 16
    assert experiment.search.num_trials == 16
    assert experiment.search.sampler.kind == "tpe"
    assert experiment.scheduler == Asha()
    assert experiment.run.name is None
    assert experiment.storage_path == here / "runs"
    assert experiment.source == "search.yaml"
    assert experiment.text == MINIMAL
    assert experiment.notes == ()


def test_later_wins(here: Path) -> None:
    write(
        here,
        "settings: {train.lora_r: 4, train.learning_rate: 1e-4, train.warmup_ratio: 0.1}\n"
        "parameters: {learning_rate: {type: float, low: 1e-5, high: 1e-2}}\n",
        "space.yaml",
    )
    path = write(
        here,
        MINIMAL.replace(SPACE, "space.yaml") + "train:\n  learning_rate: 2e-4\n  lora_alpha_mode: 2r\n",
    )
    experiment = load_experiment(
        path,
        ["train.lora_alpha_mode=rslora", "search.num_trials=4", "search.seed=1"],
        {"search.seed": 5, "run.name": None},
    )
    train = experiment.settings.train
    assert train.warmup_ratio == 0.1  # from the space
    assert train.lora_r == 4
    assert train.learning_rate == 2e-4  # the file over the space
    assert train.lora_alpha_mode == "rslora"  # --set over the file
    assert experiment.search.num_trials == 4
    assert experiment.search.seed == 5  # the flag
    assert experiment.run.name is None  # a flag that was not given
    assert dict(experiment.changes)["search.seed"] == 5


def test_another_kind_drops_the_options_of_the_first(here: Path) -> None:
    path = write(here, MINIMAL + "scheduler: {reduction_factor: 2, grace_period: 5}\n")
    assert load_experiment(path, ["scheduler.kind=none"]).scheduler == NoScheduler()
    assert load_experiment(path, ["scheduler=none"]).scheduler == NoScheduler()
    kept = load_experiment(path, ["scheduler.kind=asha"]).scheduler
    assert isinstance(kept, Asha)
    assert kept.grace_period == 5


def test_another_kind_of_scheduler_leaves_a_trial_its_gpus(here: Path) -> None:
    path = write(here, MINIMAL + "resources: {gpus_per_trial: 2, strategy: fsdp}\nscheduler: {grace_period: 2}\n")
    for changed in (["scheduler.kind=none"], ["scheduler=none"]):
        experiment = load_experiment(path, changed)
        assert experiment.scheduler == NoScheduler()
        assert experiment.resources == Resources(gpus_per_trial=2, strategy="fsdp")


@pytest.mark.parametrize(("old", "name"), MOVED.items())
def test_a_setting_that_stands_elsewhere_now_is_refused_with_its_name(
    old: tuple[str, str], name: tuple[str, str], here: Path
) -> None:
    told = f"`{dotted(old)}` has moved to `{dotted(name)}`"
    in_run = MINIMAL.replace("run: {", f"run: {{{old[1]}: 1, ")
    path = write(here, in_run if old[0] == "run" else MINIMAL + f"scheduler:\n  {old[1]}: 1\n")
    with pytest.raises(InputError, match=rf"search\.yaml:\d+: {told}\n  try: write `{name[1]}` under `resources:`"):
        load_experiment(path, ["scheduler=none"])
    for change in (f"{dotted(old)}=1", f"{old[0]}={{{old[1]}: 1}}"):
        with pytest.raises(InputError, match=rf"--set .*: {told}\n  try: --set {dotted(name)}="):
            load_experiment(write(here, MINIMAL), [change])


def test_what_was_written_by_an_earlier_version_is_read(here: Path) -> None:
    resolved = dump_resolved(load_experiment(write(here, MINIMAL)))
    del resolved["resources"]
    for value in (0.5, None):
        old = {**resolved, "run": {**resolved["run"], "gpus_per_trial": value}}
        assert load_resolved(old).resources.gpus_per_trial == value
    old = {**resolved, "scheduler": {"kind": "none", "trials_per_gpu": 4}, "run": {**resolved["run"], "scale_to": 3}}
    experiment = load_resolved(old)
    assert experiment.resources == Resources(trials_per_gpu=4, scale_to=3)
    assert load_resolved(dump_resolved(experiment)).resources == experiment.resources


def test_a_run_folder_of_before_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`before_resources/` was written when what a trial gets stood in `scheduler:` and `run:`."""
    monkeypatch.setenv("TUNER_ALLOW_MODULES", "tests.programs.toy")
    resolved = json.loads((BEFORE_RESOURCES / "resolved.json").read_text())
    del resolved["about"]
    assert "gpus_per_trial" in resolved["scheduler"] and "scale_to" in resolved["run"]
    assert load_resolved(resolved).resources == Resources(
        cpus_per_trial=0.5, gpus_per_trial=0, workers_per_trial=1, max_concurrent_trials=1, scale_to=2
    )
    resolved["resources"] = "of another kind"
    with pytest.raises(InputError, match="resources: got 'of another kind'"):
        load_resolved(resolved)


def test_bare_words_are_kinds(here: Path) -> None:
    path = write(here, MINIMAL.replace("org/name}", "org/name, quantization: nf4}"))
    assert load_experiment(path).settings.model.quantization == Nf4()
    sharper = load_experiment(path, ["model.quantization.double_quant=false"]).settings
    assert sharper.model.quantization == Nf4(double_quant=False)
    assert load_experiment(path, ["search.sampler=random"]).search.sampler.kind == "random"
    assert load_experiment(path, ["search.sampler.n_startup_trials=3"]).search.sampler.n_startup_trials == 3
    startup = "search.sampler.n_startup_trials=3"
    for given, flags in (([startup], {"search.sampler": "tpe"}), ([startup, "search.sampler=tpe"], {})):
        assert load_experiment(path, given, flags).search.sampler.n_startup_trials == 3, "whichever is written first"


def test_an_empty_section_is_the_defaults(here: Path) -> None:
    experiment = load_experiment(write(here, MINIMAL + "train:\n  # lora_r: 8\n"))
    assert experiment.settings.train.lora_r == 16


def test_rules_can_be_switched_off(here: Path) -> None:
    experiment = load_experiment(write(here, MINIMAL), ["scheduler.flatline=null", "scheduler.diverged=null"])
    assert isinstance(experiment.scheduler, Asha)
    assert experiment.scheduler.flatline is None
    assert experiment.scheduler.diverged is None


def test_paths_are_relative_to_where_they_are_written(here: Path) -> None:
    for name in ("project/rows.jsonl", "rows.jsonl", "project/base/config.json", "project/space.yaml"):
        write(here, "parameters: {lora_r: {type: int, low: 2, high: 8}}", name)
    text = MINIMAL.replace("org/name", "base").replace("org/rows", "rows.jsonl").replace(SPACE, "space.yaml")
    path = write(here, text, "project/search.yaml")
    experiment = load_experiment(path, [], {"data.validation": "rows.jsonl"})
    assert experiment.settings.model.model_name_or_path == str(here / "project/base")
    assert experiment.settings.data.train == str(here / "project/rows.jsonl")
    assert experiment.settings.data.validation == str(here / "rows.jsonl")
    assert experiment.space.path == here / "project/space.yaml"


def test_a_hub_id_stays_one(here: Path) -> None:
    experiment = load_experiment(write(here, MINIMAL))
    assert experiment.settings.model.model_name_or_path == "org/name"
    assert experiment.settings.data.train == "org/rows"


def test_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    write(here, "{}", "mine/rows.jsonl")
    experiment = load_experiment(write(here, MINIMAL), [], {"data.train": "~/mine/rows.jsonl"})
    assert experiment.settings.data.train == str(here / "mine/rows.jsonl")


def test_flags_without_a_file_start_from_plain_defaults(here: Path) -> None:
    experiment = load_experiment(
        None,
        [f"search.space={SPACE}"],
        {"model.model_name_or_path": "a/b", "data.train": "c/d", "run.program": PROGRAM},
    )
    assert experiment.path is None
    assert experiment.source == "the command line"
    assert experiment.settings.train.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("given", "flag"), [((), {"search.space": "qlora"}), (("search.space=qlora",), {})], ids=["--space", "--set"]
)
def test_a_named_space_beside_settings_within_one(here: Path, given: tuple[str, ...], flag: dict[str, str]) -> None:
    """One of them would replace the other without a word. Following the advice works."""
    change = "search.space.parameters.lora_r={type: int, low: 2, high: 8}"
    for overrides in ([*given, change], [change, *given]):
        with pytest.raises(
            InputError, match=r"search\.space\.parameters\.lora_r.* changes nothing beside --s"
        ) as refused:
            load_experiment(write(here, MINIMAL), overrides, flag)
        assert refused.value.where == f"--set {change}" and "tuner spaces qlora" in refused.value.remedy
    naming = write(here, "search: {space: qlora}\n" + MINIMAL.partition("search:")[0], "naming.yaml")
    with pytest.raises(InputError, match=r"would replace the whole space qlora, which naming\.yaml:1 names"):
        load_experiment(naming, [change])
    copy = shipped_spaces()["qlora"].read_text().replace("[8, 16, 32, 64]", "[8]", 1)
    write(here, copy, "my_space.yaml")
    space = load_experiment(write(here, MINIMAL), [], {"search.space": "my_space.yaml"}).space
    assert space.data is not None and space.data["parameters"]["lora_r"]["values"] == [8]
    kept = load_experiment(write(here, MINIMAL)).space.data
    assert kept is not None
    assert load_experiment(write(here, MINIMAL), [change]).space.data == {
        "parameters": {**kept["parameters"], "lora_r": {"type": "int", "low": 2, "high": 8}}
    }


def test_only_the_data_without_a_file_asks_for_the_model(here: Path) -> None:
    with pytest.raises(InputError, match=r"`model.model_name_or_path` is missing|`model` is missing"):
        load_experiment(None, [f"search.space={SPACE}"], {"data.train": "c/d", "run.program": PROGRAM})


@pytest.mark.parametrize("name", ["a", "first", "2026-11-22_10.30", "A" * 64])
def test_run_names(here: Path, name: str) -> None:
    assert load_experiment(write(here, MINIMAL), [], {"run.name": name}).run.name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "a/b", "-a", "a b", "ä", "a\n", "A" * 65, "/tmp/x"])
def test_refused_run_names(here: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"run\.name"):
        load_experiment(write(here, MINIMAL), [], {"run.name": name})


def test_grace_period_against_the_budget(here: Path) -> None:
    path = write(here, MINIMAL + "train: {max_steps: 100}\nscheduler: {grace_period: 101}\n")
    with pytest.raises(InputError, match="a whole trial is 100 steps") as refused:
        load_experiment(path)
    assert refused.value.where == "search.yaml:6"
    (note,) = load_experiment(path, ["scheduler.grace_period=100"]).notes
    assert "no trial is stopped" in note
    # In tokens (a budget in epochs) it is not known yet
    load_experiment(path, ["train.max_steps=null", "train.num_train_epochs=2"])


@pytest.mark.parametrize(
    ("sampler", "notes"), [("gp", 1), ("cmaes", 1), ("tpe", 0), ("rungs", 0), ("random", 0), ("qmc", 0)]
)
def test_samplers_that_cannot_learn_from_pruned_trials(here: Path, sampler: str, notes: int) -> None:
    path = write(here, MINIMAL)
    assert len(load_experiment(path, [f"search.sampler={sampler}"]).notes) == notes
    assert load_experiment(path, [f"search.sampler={sampler}", "scheduler.kind=none"]).notes == ()


def test_resolved_is_json_and_comes_back(here: Path) -> None:
    write(here, f"settings: {{train.lora_r: 4}}\n{SPACE[1:-1]}\n", "space.yaml")
    path = write(here, MINIMAL.replace(SPACE, "space.yaml"))
    resolved = json.loads(json.dumps(dump_resolved(load_experiment(path, ["train.max_steps=10"]))))
    (here / "space.yaml").unlink()
    again = load_resolved(resolved)
    assert again.settings.train.lora_r == 4
    assert again.space.name == "space"
    assert dump_resolved(again) == resolved


def test_an_experiment_pickles(here: Path) -> None:
    experiment = load_experiment(write(here, MINIMAL))
    assert pickle.loads(pickle.dumps(experiment)) == experiment


def test_every_flag_is_a_setting_of_the_real_program() -> None:
    from trainables.settings import Settings
    from tuner.config.words import node_at

    class Real:
        pass

    Real.Settings = Settings  # type: ignore[attr-defined]
    schema = experiment_schema(Real)  # type: ignore[arg-type]
    missing = [flag for flag, key in FLAGS.items() if node_at(schema, tuple(key.split("."))) is None]
    assert missing == []
    assert ("data", "train") in path_keys(schema)


def test_loading_imports_nothing_heavy(here: Path) -> None:
    path = write(here, MINIMAL)
    code = (
        "import sys; from pathlib import Path; from tuner.config import load_experiment; "
        "from tuner.space import experiment_space; experiment_space(load_experiment(Path(sys.argv[1]))); "
        "print(sorted({'torch', 'ray', 'optuna', 'transformers', 'trl', 'peft', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
