"""Writes TensorBoard's event files into the run folder, one folder for each attempt at a trial, with what the HPARAMS
page shows.

TensorBoard's own writer needs no torch; tensorboardX, which comes with Ray, imports torch (3 s).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.watch.trackers.base import Ending, Run, flat


class TensorBoard:
    """The tracker for TensorBoard."""

    def __init__(self, search: str, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def start(self, run: Run) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        name = run.name.replace(f"trial {run.number}", f"trial-{run.number:04d}").replace(" ", "-")
        self._writers[run.name] = EventFileWriter(str(self._folder / name))
        self._write(run, 0, summary_v2.hparams_pb(flat(run.params), trial_id=run.name))

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(run, step, Summary(value=values))

    def end(self, run: Run, ending: Ending) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        good = ending.status in ("completed", "pruned", "parked")
        status = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
        info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        self._write(run, 0, Summary(value=[value]))
        self._writers.pop(run.name).close()

    def close(self, summary: Mapping[str, Any]) -> None:
        for name in list(self._writers):
            self._writers.pop(name).close()

    def _write(self, run: Run, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        writer = self._writers[run.name]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()  # the writer flushes every two minutes by itself: too late to watch a curve
