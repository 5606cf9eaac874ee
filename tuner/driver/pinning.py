"""Replaces the revisions that a search names on the hub by commits, once, before anything else.

A branch may move while a search runs, or between two sessions of it. From here on the settings hold a commit: in
resolved.json, in every worker and in best/train.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tuner.config import Experiment
from tuner.subprocess_call import SubprocessProgram


def pinned(experiment: Experiment, log: Path) -> Experiment:
    """The experiment with a commit in place of every other revision. Asks the program, in a process of its own, and
    only where something is unpinned. Raises InputError for what the hub does not have or does not give."""
    if not experiment.program_class.unpinned(experiment.settings):
        return experiment
    settings = experiment.settings.model_dump(mode="json")
    asking = SubprocessProgram(experiment.program, "pin", settings, log=log)
    try:
        commits: Mapping[str, str] = asking.result()
    finally:
        asking.close()
    for name, commit in commits.items():
        section, _, key = name.partition(".")
        settings[section][key] = commit
    return replace(experiment, settings=type(experiment.settings).model_validate(settings))
