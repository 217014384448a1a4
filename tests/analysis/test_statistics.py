"""Mean and spread against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from statemix.analysis import spread


def test_spread():
    assert spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3), 3, 1.0, 4.0))
    assert spread([0.5]) == (0.5, 0.0, 1, 0.5, 0.5)
    nothing = spread([])
    assert nothing.n == 0
    assert all(map(math.isnan, (nothing.mean, nothing.deviation, nothing.low, nothing.high)))
