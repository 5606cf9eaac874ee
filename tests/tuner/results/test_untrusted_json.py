"""Values of a ledger that a stranger wrote."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.results.untrusted_json import MAX_NUMBER, integer


@pytest.mark.parametrize(("value", "read"), [(3, 3), (0, 0), (-2, -2), (3.0, 3), (MAX_NUMBER, MAX_NUMBER)])
def test_integers(value: Any, read: int) -> None:
    assert integer(value) == read and type(integer(value)) is int


@pytest.mark.parametrize(
    "value", [2.5, True, "3", None, [3], float("nan"), float("inf"), 1e300, MAX_NUMBER + 1, 10**400]
)
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(ValueError, match="a whole number"):
        integer(value)
