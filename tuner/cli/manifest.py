"""`tuner submit --kuberay` and `--slurm`: the search as a file for the system that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--kuberay", {"is_flag": True, "help": "Print a RayJob manifest for Kubernetes; send nothing."}),
    ("--slurm", {"is_flag": True, "help": "Print a Slurm batch script; send nothing."}),
    ("--nodes", {"type": click.IntRange(1), "help": "Of a manifest: nodes that train.  [default: 1]"}),
    ("--min-nodes", {"type": click.IntRange(0), "help": "Of --kuberay: below --nodes, the cluster grows and shrinks."}),
    ("--gpus-per-node", {"type": click.IntRange(0), "help": "Of a manifest.  [default: 1]"}),
    ("--cpus-per-node", {"type": click.IntRange(1), "help": "Of a manifest.  [default: 8]"}),
    ("--hours", {"type": click.FloatRange(0, min_open=True), "help": "Of a manifest: the most.  [default: 24]"}),
    ("--image", {"metavar": "IMAGE", "help": "Of --kuberay: an image with Ray and tuner."}),
    ("--volume", {"metavar": "CLAIM:/PATH", "help": "Of --kuberay: a volume that all nodes mount."}),
    ("--secret", {"metavar": "NAME", "help": "Of --kuberay: a Secret with HF_TOKEN, AWS_ACCESS_KEY_ID, ..."}),
    ("--partition", {"metavar": "NAME", "help": "Of --slurm."}),
    ("--account", {"metavar": "NAME", "help": "Of --slurm."}),
)


def manifest_options(command: Command) -> Command:
    """Adds the options of `--kuberay` and `--slurm` to a command."""
    for flag, words in reversed(_OPTIONS):
        command = click.option(flag, **words)(command)
    return command


def write_manifest(
    file: Path | None,
    overrides: tuple[str, ...],
    include: tuple[Path, ...],
    resume: str | None,
    values: Mapping[str, Any],
) -> str:
    """The text of the manifest or batch script. values: the options. Raises InputError for what can be found wrong with
    the search on this machine."""
    from tuner.cli.options import load, permitted, settings_given
    from tuner.contract import InputError
    from tuner.driver.plan import make_plan

    if resume is not None or (values["kuberay"] and values["slurm"]):
        raise InputError(
            "cannot be written together",
            where="--resume" if resume is not None else "--kuberay, --slurm",
            expected="a search file, and one of --kuberay and --slurm; what they write goes on by itself",
        )
    flags = settings_given(values)
    flags.pop("run.address", None)
    kuberay = bool(values["kuberay"])
    permission = permitted(values, runs=False)
    experiment = load(file, overrides, flags, elsewhere=kuberay, permission=permission)
    modules = [own.module for own in experiment.code.values()]
    make_plan(experiment)
    name = experiment.run.name
    if name is None:
        raise InputError(
            "a search that goes on by itself needs a name", where="--name", expected="the name to find it again by"
        )
    sizes = {"nodes": values["nodes"], "gpus": values["gpus_per_node"], "cpus": values["cpus_per_node"]}
    sizes |= {"hours": values["hours"]}
    if kuberay:
        from tuner.cluster.kuberay import manifest, site_from
        from tuner.cluster.parcel import pack
        from tuner.cluster.payload import require_shared, search_words

        storage = require_shared(experiment.run.storage_path)
        parcel = pack(experiment, include, packages=())
        words = search_words(parcel, name=name, storage_path=storage, overrides=overrides, flags=flags, modules=modules)
        more = {"least": values["min_nodes"], "volume": values["volume"], "secret": values["secret"]}
        site = site_from(values["image"], sizes | more)
        return manifest(name, storage, experiment.run.program, [*words, "--address", "auto"], parcel, site)
    return _slurm(name, file, overrides, flags, sizes, values, modules)


def _slurm(
    name: str,
    file: Path | None,
    overrides: tuple[str, ...],
    flags: Mapping[str, Any],
    sizes: Mapping[str, Any],
    values: Mapping[str, Any],
    modules: Sequence[str],
) -> str:
    import sys

    from tuner.cluster.payload import flag_words, module_words
    from tuner.cluster.slurm import Allocation, batch_script

    asked = {**sizes, "partition": values["partition"], "account": values["account"]}
    words = [str(file)] if file else []
    for text in overrides:
        words += ["--set", text]
    words += [*flag_words({**flags, "run.name": name}), *module_words(modules)]
    allocation = Allocation(**{key: value for key, value in asked.items() if value is not None})
    return batch_script(name, words, allocation, python=Path(sys.executable), folder=Path.cwd())
