"""Several seeds of the same thing: mean, deviation, range and interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

RESAMPLES = 1000
"""Of the bootstrap interval."""


class Spread(NamedTuple):
    """n values: mean, sample standard deviation (0 for one value), minimum, maximum, 95 % interval of the mean.

    The interval is that of the percentile bootstrap, always drawn alike. Without values all but n are NaN.
    """

    mean: float
    deviation: float
    n: int
    low: float = math.nan
    high: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)

    def __str__(self) -> str:
        """ "0.998 ± 0.001"; the deviation of one value is not shown."""
        if not self.n:
            return "–"
        return f"{self.mean:.3f} ± {self.deviation:.3f}" if self.n > 1 else f"{self.mean:.3f}"


def spread(values: Iterable[float]) -> Spread:
    """Mean, deviation, number, range and interval of the values."""
    numbers = list(values)
    if not numbers:
        return Spread(math.nan, math.nan, 0)
    n, tensor = len(numbers), torch.tensor(numbers, dtype=torch.float64)
    mean, deviation = float(tensor.mean()), float(tensor.std()) if n > 1 else 0.0
    if n == 1 or not math.isfinite(mean):
        return Spread(mean, deviation, n, min(numbers), max(numbers), (mean, mean))
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(0))
    low, high = tensor[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Spread(mean, deviation, n, min(numbers), max(numbers), (low, high))
