"""Baselines in steps that find everything on the device, here without a GPU."""

from __future__ import annotations

import pytest
import torch

from research.tests.baselines.small import SIZES
from statemix.training import build_state, resolve_config
from statemix.training.cuda_graph import DeviceStep, forward


@pytest.mark.parametrize("mixer", SIZES)
def test_gradients_lie_as_their_parameters_do(mixer):
    """A fused update refuses others; those of products over blocks of channels come transposed."""
    arguments = [f"mixer.{key}={value}" for key, value in {"name": mixer, **SIZES[mixer]}.items()]
    settings = ["model.dim=8", "model.depth=1", "training.train_examples=64", "training.batch_size=16"]
    step = DeviceStep(
        build_state(resolve_config(overrides=[*arguments, *settings]), torch.device("cpu")), forward
    )
    step.enter(0)
    step.run(16)
    updated = [parameter for parameter in step.update.parameters if parameter.grad is not None]
    assert updated
    assert all(parameter.grad.stride() == parameter.stride() for parameter in updated)
