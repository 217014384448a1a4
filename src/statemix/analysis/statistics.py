"""Several seeds of the same thing: mean, spread, and how many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Spread(NamedTuple):
    """The mean of n values and their sample standard deviation (0 for one value, NaN for none)."""

    mean: float
    deviation: float
    n: int

    def __str__(self) -> str:
        """ "0.998 ± 0.001"; the spread of one value is not shown."""
        if not self.n:
            return "–"
        return f"{self.mean:.3f} ± {self.deviation:.3f}" if self.n > 1 else f"{self.mean:.3f}"


def spread(values: Iterable[float]) -> Spread:
    """Mean, sample standard deviation and number of the values."""
    numbers = list(values)
    if not numbers:
        return Spread(math.nan, math.nan, 0)
    mean = math.fsum(numbers) / len(numbers)
    squares = math.fsum((x - mean) ** 2 for x in numbers)
    return Spread(mean, math.sqrt(squares / (len(numbers) - 1)) if len(numbers) > 1 else 0.0, len(numbers))
