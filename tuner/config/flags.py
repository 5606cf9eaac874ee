"""Command line flags that are settings. One table for the command line, for the merge, and for error messages.

Some flags are settings of the shipped program, `sft`. They also work for another program that has settings of the
same names.
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
    "--budget": "search.budget",
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
"""The dotted name of the setting that each flag gives."""

OWN_WORK = frozenset((FLAGS["--model"], FLAGS["--data"], FLAGS["--program"]))
"""Settings that make a command without a search file a search of the user's own; without them it runs the demo."""
