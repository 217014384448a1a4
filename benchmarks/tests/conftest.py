"""One torch thread in each worker: the tensors are small, and the workers share the cores."""

from __future__ import annotations

import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)
