"""How a program refuses: what the user wrote cannot be used, or a trial cannot go on."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuner.contract.facts import Fit, Reason, Verdict


class InputError(Exception):
    """Something the user wrote cannot be used: what is wrong, where, what was expected, what to do. Exit code 2."""

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines += [f"  try: {self.remedy}"] if self.remedy else []
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return InputError.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, str]:
        """All of it as JSON; `from_dict` reads it."""
        return {"what": self.what, "where": self.where, "expected": self.expected, "remedy": self.remedy}

    @classmethod
    def from_dict(cls, given: Mapping[str, str]) -> InputError:
        """Reads what `to_dict` returned."""
        return cls(**given)


class Elsewhere(Exception):
    """Holds the traceback of an exception of another process: the `__cause__` of the one that is raised here for it."""


class Fault(Exception):
    """A program cannot go on with this trial, and knows why.

    Only the worker's own safety ends a trial from inside: out of memory, frozen weights, unusable data or
    configuration. Whether a loss is good enough is the driver's to judge. device, fit: as in `Verdict`; with a `fit`
    the trial is tried again in that arrangement.
    """

    def __init__(
        self, reason: Reason, message: str, remedy: str = "", device: str = "", fit: Fit | None = None
    ) -> None:
        self.reason, self.message, self.remedy = reason, message, remedy
        self.device, self.fit = device, fit
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return Fault.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; `from_dict` reads it. cause: the traceback of its `__cause__`, "" without one."""
        return {
            "reason": str(self.reason), "message": self.message, "remedy": self.remedy, "device": self.device,
            "fit": None if self.fit is None else asdict(self.fit), "cause": _traceback(self.__cause__),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Fault:
        """Reads what `to_dict` returned."""
        fit = None if given["fit"] is None else Fit(**given["fit"])
        fault = cls(Reason(given["reason"]), given["message"], given["remedy"], given["device"], fit)
        fault.__cause__ = Elsewhere(given["cause"]) if given["cause"] else None
        return fault

    @classmethod
    def of(cls, verdict: Verdict) -> Fault:
        """Makes a fault of a verdict that another process sent."""
        return cls(verdict.reason, verdict.message, verdict.remedy, verdict.device, verdict.fit)

    @property
    def verdict(self) -> Verdict:
        """The ending that this fault gives its trial."""
        return Verdict(self.reason, self.message, self.remedy, self.device, self.fit)


class Unpackable(Fault):
    """Trials cannot share this base, or this trial cannot share it with others; alone they can train."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Unpackable.from_dict, (self.to_dict(),)


def _traceback(error: BaseException | None) -> str:
    if error is None or isinstance(error, Elsewhere):
        return "" if error is None else str(error)
    return "".join(traceback.format_exception(error))
