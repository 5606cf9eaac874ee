"""Writes the settings of a search into its folder once, and reads them for every resume."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.config import Experiment, dump_resolved, load_resolved
from tuner.contract import InputError
from tuner.importing import Permission
from tuner.redaction import redact, redacted
from tuner.results import sameness
from tuner.results.folder import RunFolder
from tuner.results.untrusted_read import read_object
from tuner.results.versions import versions
from tuner.seeds import derive_seed
from tuner.space import with_params


def fixed_experiment(experiment: Experiment, params: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment that trains one point again: every setting of the program, and a search of one trial. facts: those
    of the preparation; the fingerprints in them are expected again."""
    made_of = sameness.digests(sameness.parts(facts))
    settings = with_params(experiment.settings, params, experiment.program_class)
    return {
        **settings.model_dump(mode="json"),
        "search": {"space": {"parameters": {}}, "num_trials": 1, "seed": experiment.search.seed},
        "scheduler": {"kind": "none"},
        **({"resources": group} if (group := _group(experiment)) else {}),
        "run": {"program": experiment.program, **({"made_of": made_of} if made_of else {})},
    }


def _group(experiment: Experiment) -> dict[str, Any]:
    """The `resources` of a trial that several processes train; {} for any other."""
    names = ("gpus_per_trial", "workers_per_trial", "strategy")
    given = experiment.resources.model_dump(mode="json", include=set(names))
    return given if experiment.resources.processes > 1 else {}


def write_settings(folder: RunFolder, experiment: Experiment) -> None:
    """Writes the experiment as the user wrote it, without secrets, and as resolved, with versions and seeds."""
    folder.experiment.write_text(redact(experiment.text), encoding="utf-8")
    about = {
        "versions": versions(),
        "seeds": {purpose: derive_seed(experiment.search.seed, purpose) for purpose in ("sampler", "trial")},
        "command": redacted([Path(sys.executable).name, "-m", "tuner", *sys.argv[1:]]),
        "labels": {name: p.label for name, p in experiment.program_class.PARAMETERS.items() if p.label},
    }
    resolved = {**dump_resolved(experiment), "about": about}
    folder.resolved.write_text(json.dumps(resolved, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_settings(folder: RunFolder, digest: str, permission: Permission) -> Experiment:
    """Reads the settings that the search was started with. digest: of the file, as the ledger has it; "" for none.
    Raises InputError where the file was changed, and where it names code of a user's own that nobody allowed."""
    anew = f"restore it from a backup, or start anew from {folder.experiment} under another name"
    try:
        resolved = read_object(folder.resolved)
    except InputError as error:
        raise InputError(error.what, where=error.where, expected=error.expected, remedy=anew) from error
    if digest and digest != digest_of(folder.resolved):
        raise InputError(
            "is damaged, or was edited: the ledger knows other settings (their SHA-256 does not fit)",
            where=str(folder.resolved),
            expected="the settings that the search was started with",
            remedy=anew,
        )
    resolved.pop("about", None)
    experiment = load_resolved(resolved, str(folder.resolved), permission=permission)
    for key, own in experiment.code.items():
        if not own.allowed:
            raise own.not_run(key, str(folder.resolved))
    return experiment


def digest_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; the ledger has that of the settings."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
