"""Writes TensorBoard's event files into the run folder, one folder for each attempt at a trial, with what the HPARAMS
page and the CUSTOM SCALARS page show.

TensorBoard's own writer needs no torch; tensorboardX, which comes with Ray, imports torch (3 s).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.results.records import RECIPE
from tuner.watch.trackers.base import Ending, Run, flat


class TensorBoard:
    """The tracker for TensorBoard."""

    def __init__(self, search: str, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}
        self._has_layout = False

    def start(self, run: Run) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        name = _folder_of(run)
        self._writers[run.name] = EventFileWriter(str(self._folder / name))
        if not self._has_layout:  # TensorBoard merges the layouts of all folders: one a session is enough
            self._write(run, 0, _layout(run.objective))
            self._has_layout = True
        self._write(run, 0, summary_v2.hparams_pb(flat(run.params), trial_id=name))

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # The HPARAMS page has the last value of each tag, and a trial is judged by its best
        tags = dict(metrics) if run.best is None else {**metrics, f"best_{run.objective}": run.best}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in tags.items()]
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


def _folder_of(run: Run) -> str:
    """The name of an attempt in TensorBoard: "trial-0000-recipe", "trial-0010-attempt-2"; by name they lie in order."""
    recipe = "-recipe" if run.number == RECIPE else ""
    attempt = run.name.removeprefix(f"trial {run.number}").replace(" ", "-")
    return f"trial-{run.number:04d}{recipe}{attempt}"


def _layout(objective: str) -> Any:
    """The CUSTOM SCALARS page: each loss in one chart, with a line a trial."""
    from tensorboard.compat.proto import tensor_pb2, types_pb2
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    names = [objective, f"best_{objective}", "train_loss"]
    charts = [
        layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=[f"{re.escape(name)}$"]))
        for name in dict.fromkeys(names)
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="all trials", chart=charts)])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[layout.SerializeToString()])
    about = metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)])
