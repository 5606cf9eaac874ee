"""The commits of what a search names on the hub, settled once, before anything else.

A branch may move while a search runs, or between two sessions of it. What the settings say from here on, in
resolved.json, to every worker and in best/train.yaml, is a commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tuner.config import Experiment
from tuner.subprocess_call import SubprocessProgram


def pinned(experiment: Experiment, log: Path) -> Experiment:
    """The experiment with a commit for every revision that was none. Asks the program, in a process of its own where
    there is anything to ask. Raises InputError for what the hub does not have or does not give."""
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
