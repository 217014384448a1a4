"""Several seeds of the same thing: mean, deviation and range."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple


class Spread(NamedTuple):
    """n values: mean, sample standard deviation (0 for one value), lowest and highest; without values NaN."""

    mean: float
    deviation: float
    n: int
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Mean, deviation, number and range of the values.

    >>> spread([0.25, 0.75])
    Spread(mean=0.5, deviation=0.3535533905932738, n=2, low=0.25, high=0.75)
    """
    numbers = list(values)
    if not numbers:
        return Spread(math.nan, math.nan, 0, math.nan, math.nan)
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return Spread(statistics.fmean(numbers), deviation, len(numbers), min(numbers), max(numbers))
