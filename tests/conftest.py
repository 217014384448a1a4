"""What every test runs under: one torch thread in each worker, hypothesis without chance."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "statemix", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("statemix")


def pytest_configure(config: pytest.Config) -> None:
    """Workers share the cores among themselves: threads of one would only wait for those of the others."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)
