"""Baselines in steps that find everything on the device, here without a GPU."""

from __future__ import annotations

import pytest

from research.tests.baselines.small import SIZES
from tests.training.test_cuda_graph import assert_gradients_fit, state_of


@pytest.mark.parametrize("mixer", SIZES)
def test_gradients_lie_as_their_parameters_do(mixer):
    assert_gradients_fit(state_of(*(f"mixer.{k}={v}" for k, v in {"name": mixer, **SIZES[mixer]}.items())))
