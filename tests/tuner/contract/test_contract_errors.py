"""The errors that a program raises arrive complete in another process."""

from __future__ import annotations

import pickle

from tuner.contract import Fault, InputError, Reason


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("broken", where="a.yaml:3", expected="whole", remedy="mend it")))
    assert str(error) == "a.yaml:3: broken\n  expected: whole\n  try: mend it"
    fault = pickle.loads(pickle.dumps(Fault(Reason.FROZEN, "nothing moves", "look here")))
    assert (fault.verdict.reason, fault.verdict.message, fault.verdict.remedy) == (
        Reason.FROZEN, "nothing moves", "look here",
    )  # fmt: skip
