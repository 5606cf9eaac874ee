"""How a worker's report travels in a Ray Tune result.

Ray is told of no metric, because it ends the whole search where one is missing: it compares nothing here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from tuner.contract import Evaluation, Setup, Verdict
from tuner.redaction import redact, redacted

REPORT = "report"
"""The key of the Setup, Evaluation or Verdict in a result."""
TRACEBACK = "traceback"
"""The key of a verdict's traceback in a result; "" for other reports."""
MOST_BYTES = 2**20
"""Bytes of JSON in the largest report. A longer one is no measurement, and would stay in the ledger for ever."""
_MOST_WORDS = 2_000
"""Characters that are kept of a verdict's message, and of its remedy."""
_MOST_TRACEBACK = 64_000
"""Characters of a traceback that are kept: its end says what happened."""


def checked(report: Any) -> Setup | Evaluation:
    """Returns what a program answered, with plain numbers that the driver can read.

    Called where the program runs: the last place where an answer that cannot travel, or cannot be written into a
    ledger, is that trial's fault alone. Raises TypeError or ValueError for one.
    """
    if not isinstance(report, Setup | Evaluation):
        raise TypeError(f"the program answered {type(report).__name__}, expected Setup or Evaluation")
    if isinstance(report, Evaluation):
        report = _plain(report)
    size = len(json.dumps(asdict(report)))
    if size > MOST_BYTES:
        raise ValueError(f"the program's {type(report).__name__} has {size:,} bytes, at most {MOST_BYTES:,} count")
    return report


def to_result(report: Setup | Evaluation | Verdict, traceback: str = "") -> dict[str, Any]:
    """Makes the Ray Tune result that carries a `checked` report. Ray passes the dataclass through as it is.

    Secrets are taken out, because Ray keeps results in files of its own.
    """
    if isinstance(report, Verdict):
        report = replace(report, message=report.message[:_MOST_WORDS], remedy=report.remedy[:_MOST_WORDS])
    return {REPORT: redacted(report), TRACEBACK: redact(traceback[-_MOST_TRACEBACK:])}


def _plain(evaluation: Evaluation) -> Evaluation:
    """Turns numpy numbers and tensors into plain numbers: the driver can read neither."""
    return replace(
        evaluation,
        step=int(evaluation.step),
        max_steps=int(evaluation.max_steps),
        tokens=int(evaluation.tokens),
        metrics={str(name): None if value is None else float(value) for name, value in evaluation.metrics.items()},
        train_loss=None if evaluation.train_loss is None else float(evaluation.train_loss),
    )
