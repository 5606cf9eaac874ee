"""Shows how far a submitted search is as the message of its job, in the table of the dashboard's Jobs page.

Ray has no call for that: its job server keeps each job as JSON in the cluster's key-value store, and writes it again
only when the job ends. So the driver changes the message there, and nothing else.
"""

from __future__ import annotations

import json
import os

from tuner.results.records import SearchRecord

EVERY_S = 5.0
"""Seconds between two turns; the page asks every four."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The environment variable in which Ray tells the driver of a submitted job which job it is."""


class JobMessage:
    """Writes the progress of a search into its job; does nothing in a search that was not submitted. The driver's loop
    calls `turn` every `EVERY_S` seconds."""

    def __init__(self, record: SearchRecord) -> None:
        self._record = record
        self._told = ""
        try:
            self._job = str(json.loads(os.environ.get(_JOB_CONFIG, "{}"))["metadata"]["job_submission_id"])
        except (ValueError, KeyError, TypeError):
            self._job = ""

    def turn(self) -> None:
        """Writes the message if it has changed."""
        if not self._job or (text := progress(self._record)) == self._told:
            return
        from ray._private.ray_constants import KV_NAMESPACE_JOB
        from ray.dashboard.modules.job.common import JobInfoStorageClient
        from ray.experimental import internal_kv

        key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=self._job).encode()
        kept = internal_kv._internal_kv_get(key, namespace=KV_NAMESPACE_JOB)
        job = json.loads(kept) if kept else {}
        if job.get("status") == "RUNNING":
            value = json.dumps({**job, "message": text}).encode()
            internal_kv._internal_kv_put(key, value, overwrite=True, namespace=KV_NAMESPACE_JOB)
            self._told = text


def progress(record: SearchRecord) -> str:
    """ "5 of 16 trials ended (1 failed), 2 running · best loss 2.31 (trial 3)"."""
    failed = record.counts["status"].get("failed", 0)
    told = f"{record.num_ended} of {record.num_trials} trials ended" + (f" ({failed} failed)" if failed else "")
    if record.running:
        told += f", {len(record.running)} running"
    if record.paused:
        told += ", paused"
    contenders = (t for t in record.trials.values() if t.is_usable or not t.has_ended)
    best = record.objective.best(contenders, lambda trial: trial.best_value)
    return (
        told if best is None else f"{told} · best {record.objective.noun} {best.best_value:.4g} (trial {best.number})"
    )
