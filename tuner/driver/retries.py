"""Decides whether a trial whose attempt failed is tried again or ends, and when that ends the search.

infrastructure  its process or node is gone: tried again by another worker, three times; it says nothing about the trial
disk            the disk was full for a while: tried again as long as each attempt comes further than the one before
hung            no progress for too long, killed: tried again once
out_of_memory   tried again in the next smaller arrangement, as long as there is one
error           ends the trial, because it would happen again
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuner.contract import Fit, Reason, Verdict
from tuner.disks import is_of_disk
from tuner.results.records import TrialRecord

TRIED_AGAIN = {Reason.INFRASTRUCTURE: 3, Reason.HUNG: 1}
"""How many attempts at a trial may fail for a reason and be followed by another."""
IN_A_ROW = 3
"""As many trials that fail one after another with one cause end the search: the next one would fail too."""
_COUNTED = frozenset({Reason.ERROR, Reason.INFRASTRUCTURE, Reason.HUNG})


DISK = "disk"
"""The reason of a retry that is counted by itself: a disk that fills up now and then would use up TRIED_AGAIN."""


@dataclass(frozen=True)
class Retry:
    """A further attempt at a trial, as the ledger's event of that name has it."""

    reason: str
    """What the lost attempt is counted under."""
    message: str
    """Why it is tried again, in words."""
    details: Mapping[str, Any]
    """The arrangement that did not fit, and its device, where memory was the reason."""


def again(verdict: Verdict, trial: TrialRecord, given: Fit | None) -> Retry | None:
    """How a trial whose attempt failed is tried again; None where it ends. given: the arrangement of that attempt."""
    reason, fit = str(verdict.reason), verdict.fit
    details = {} if fit is None else {"device": verdict.device, "fit": asdict(fit)}
    if verdict.reason is Reason.OUT_OF_MEMORY:
        if fit is None or fit.within(given) == given:
            return None
        return Retry(reason, f"out of memory, goes on with {fit}", details)
    if is_of_disk(verdict) and trial.step > trial.earlier_step:
        return Retry(DISK, verdict.message, details)
    lost, allowed = trial.losses.get(reason, 0), TRIED_AGAIN.get(verdict.reason, 0)
    return Retry(reason, f"{verdict.message} ({lost + 1} of {allowed})", details) if lost < allowed else None


class Streak:
    """Counts trials that failed one after another with one cause."""

    def __init__(self) -> None:
        self._cause = ""
        self._numbers: list[int] = []

    def ended(self, number: int, verdict: Verdict) -> Verdict | None:
        """Counts the ending of a trial. Returns the verdict that ends the search where `IN_A_ROW` is reached, else
        None."""
        cause = _cause(verdict)
        if cause != self._cause:
            self._numbers = []
        self._cause = cause
        self._numbers += [number] if cause else []
        if len(self._numbers) < IN_A_ROW:
            return None
        trials = ", ".join(str(n) for n in self._numbers[:-1]) + f" and {self._numbers[-1]}"
        return Verdict(
            verdict.reason,
            f"trials {trials} failed one after another with one cause: {verdict.message or verdict.reason}",
            verdict.remedy or f"look at the traceback (show NAME {number}), mend it, and resume with more --num-trials",
        )


def _cause(verdict: Verdict) -> str:
    """The reason and message of an ending without the numbers in it; "" for an ending that is not counted."""
    if verdict.reason not in _COUNTED:
        return ""
    return f"{verdict.reason}: " + re.sub(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+", "#", verdict.message)
