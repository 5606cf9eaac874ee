"""How a worker's report travels in a Ray Tune result.

The metric is always there and always a float, because Ray ends the whole search where it is not; what the worker
really said travels beside it, whole.
"""

from __future__ import annotations

from typing import Any

from tuner.contract import METRIC, Evaluation, Setup, Verdict
from tuner.redaction import redact, redacted

REPORT = "report"
RESOURCE = "resource"
TRACEBACK = "traceback"


def to_result(report: Setup | Evaluation | Verdict, traceback: str = "") -> dict[str, Any]:
    """The Ray Tune result that carries `report`; a dataclass, which Ray passes through as it is.

    Without secrets: Ray keeps results in files of its own.
    """
    if not isinstance(report, Setup | Evaluation | Verdict):
        raise TypeError(f"the program answered {type(report).__name__}, expected Setup or Evaluation")
    loss = report.eval_loss if isinstance(report, Evaluation) else None
    return {
        METRIC: float("nan") if loss is None else float(loss),
        REPORT: redacted(report),
        TRACEBACK: redact(traceback),
    }
