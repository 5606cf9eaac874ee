"""A function of the user's own that scores or judges answers, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.guest import Failed, Guest
from tuner.importing import Own, Permission, find

METRIC_TAKES = ("a prompt", "a reference", "an answer")
JUDGE_TAKES = ("a prompt", "a reference", "one answer", "another answer")


class OwnFunction:
    """A function that was named on the command line. Its process is started at once, so that what is wrong with it is
    told before anything is generated, and again after a call that failed."""

    def __init__(self, own: Own, option: str, takes: Sequence[str], seconds: float) -> None:
        """option: on the command line. takes: what it is called with, in words. seconds: for one call.

        Raises InputError where it cannot be imported, or takes something else.
        """
        self._own, self._option, self._takes, self._seconds = own, option, takes, seconds
        self._guest: Guest | None = self._started()

    @classmethod
    def named(
        cls, target: str, option: str, takes: Sequence[str], modules: Sequence[str], seconds: float = 10.0
    ) -> OwnFunction:
        """The function `package.module:name`. modules: those that --allow-module names. Raises InputError."""
        permission = Permission.given(modules, beside=False)
        own = find(target, key=option, where=option, home=Path.cwd(), permission=permission, typed=True)
        return cls(own, option, takes, seconds)

    @property
    def name(self) -> str:
        """Its name in a table: that of the function."""
        return self._own.name

    def call(self, *arguments: Any) -> tuple[Any, str]:
        """What it returns, and "": or None, and what went wrong, with the lines of the user's code."""
        try:
            if self._guest is None:
                self._guest = self._started()
            return self._guest.value(arguments, self._seconds), ""
        except Failed as failed:
            self.close()
            trouble = failed.trouble
            told = "\n".join((f"{self._own} {trouble.what}", *(f"  {frame}" for frame in trouble.frames)))
            return None, told

    def close(self) -> None:
        """Ends its process. May be called twice."""
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.close()

    def _started(self) -> Guest:
        try:
            return Guest(self._own, "function", self._takes)
        except Failed as failed:
            expected = f"a function that is called with {', '.join(self._takes)}"
            raise failed.trouble.error(
                f"{self._option}: {self._own}", where=self._option, expected=expected, remedy=""
            ) from None


def metric(target: str, modules: Sequence[str]) -> OwnFunction:
    """A metric: a prompt, the row's own answer and the model's in, a number out, of which more is better."""
    return OwnFunction.named(target, "--metric", METRIC_TAKES, modules)


def judge(target: str, modules: Sequence[str], seconds: float) -> OwnFunction:
    """A judge of two answers: a positive number where the first is better, a negative one where the second is."""
    if seconds <= 0:
        raise InputError(f"{seconds:g} seconds", where="--judge-seconds", expected="a time above 0")
    return OwnFunction.named(target, "--judge", JUDGE_TAKES, modules, seconds)
