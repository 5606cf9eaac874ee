"""Means over rows with their uncertainty, and two measured on the same rows compared row by row.

The uncertainty is a bootstrap's: rows are drawn with replacement 2,000 times, the same draws for everything that is
measured on them, and an interval holds the middle 95% of the means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

DRAWS = 2000
_SHARE = 0.95
_BLOCK = 2_000_000
"""Indices that are drawn at a time: 16 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean over rows, with its interval."""

    value: float
    low: float | None
    """The interval's lower end; None with fewer than two rows."""
    high: float | None
    """Its upper end."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """Two measured on the same rows."""

    difference: Estimate
    """The first's mean minus the second's."""
    higher: int
    """Rows in which the first's value is higher."""
    lower: int
    equal: int


class Rows:
    """Rows that several candidates were measured on."""

    def __init__(self, weights: Sequence[float], seed: int = 0) -> None:
        """weights: what each row counts."""
        self._weights, self._seed = weights, seed

    def mean(self, values: Sequence[float]) -> Estimate:
        """The weighted mean of a value for each row."""
        return self._estimate(values)

    def compare(self, one: Sequence[float], other: Sequence[float]) -> Comparison:
        """Compares a value of each row with another one of it."""
        differences = [a - b for a, b in zip(one, other, strict=True)]
        higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        return Comparison(self._estimate(differences), higher, lower, len(differences) - higher - lower)

    def _estimate(self, values: Sequence[float]) -> Estimate:
        import numpy

        weights, given = (numpy.asarray(some, dtype=numpy.float64) for some in (self._weights, values))
        value = float((weights * given).sum() / weights.sum())
        if len(given) < 2:
            return Estimate(value, None, None)
        means = numpy.concatenate(
            [(weights[drawn] * given[drawn]).sum(1) / weights[drawn].sum(1) for drawn in self._draws(len(given))]
        )
        low, high = numpy.quantile(means, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
        return Estimate(value, float(low), float(high))

    def _draws(self, total: int) -> Iterator[numpy.ndarray[Any, Any]]:
        """Indices of rows [draws, rows] int64, in blocks of bounded size: the same ones at every call."""
        import numpy

        generator = numpy.random.default_rng(self._seed)
        block, left = max(1, _BLOCK // total), DRAWS
        while left:
            now = min(block, left)
            yield generator.integers(0, total, (now, total))
            left -= now
