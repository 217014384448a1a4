"""What every test runs under: one torch thread in each worker, hypothesis without chance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "statemix", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("statemix")


def pytest_configure(config: pytest.Config) -> None:
    """The tensors are small, and the workers share the cores: more threads would only wait for one another.

    One thread also makes runs of this process equal, bit for bit, to those of the processes that tests start.
    """
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
