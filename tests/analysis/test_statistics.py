"""Mean and spread against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from statemix.analysis.statistics import spread


def test_spread():
    assert spread([1.0, 2.0, 4.0])[:5] == pytest.approx((7 / 3, math.sqrt(7 / 3), 3, 1.0, 4.0))
    assert spread([0.5]) == (0.5, 0.0, 1, 0.5, 0.5, (0.5, 0.5))
    assert str(spread([0.5])) == "0.500"
    assert str(spread([0.25, 0.75])) == "0.500 ± 0.354"
    nothing = spread([])
    assert math.isnan(nothing.mean)
    assert nothing.n == 0
    assert str(nothing) == "–"


def test_the_interval_holds_the_mean_and_stays_within_the_range():
    values = [0.1, 0.9, 1.0, 1.0, 0.8]
    low, high = spread(values).interval
    assert 0.1 <= low < spread(values).mean < high <= 1.0
    assert spread(values) == spread(values)
    assert spread([0.5, 0.5, 0.5]).interval == (0.5, 0.5)
