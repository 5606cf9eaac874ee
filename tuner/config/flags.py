"""Command line flags that are settings. One table for the command line, for the merge, and for error messages.

Flags stand for the shipped program's settings too; a program whose settings have the same names is given them alike.
"""

from __future__ import annotations

from collections.abc import Mapping

FLAGS: Mapping[str, str] = {
    "--model": "model.model_name_or_path",
    "--model-revision": "model.model_revision",
    "--trust-remote-code": "model.trust_remote_code",
    "--data": "data.train",
    "--validation": "data.validation",
    "--space": "search.space",
    "--num-trials": "search.num_trials",
    "--sampler": "search.sampler",
    "--seed": "search.seed",
    "--scheduler": "scheduler.kind",
    "--trials-per-gpu": "resources.trials_per_gpu",
    "--gpus-per-trial": "resources.gpus_per_trial",
    "--name": "run.name",
    "--storage-path": "run.storage_path",
    "--program": "run.program",
    "--address": "run.address",
    "--max-concurrent-trials": "resources.max_concurrent_trials",
    "--strict": "run.strict",
}
"""Command line flags that are settings, and the settings they are."""

OWN_WORK = frozenset((FLAGS["--model"], FLAGS["--data"], FLAGS["--program"]))
"""Who gives one of these without a file wants their own search and not the demo's settings around it."""
