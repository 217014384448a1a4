"""Baselines in training steps."""

from __future__ import annotations

import pytest
import torch

from research.tests.baselines.small import SIZES
from statemix.training import build_state, build_step, resolve_config

TINY = (
    "task.name=cyclic", "task.n=3", "task.length=6", "model.dim=8", "model.depth=1", "training.batch_size=4",
    "training.train_examples=8", "training.eval_examples=4", "training.device=cpu",
)  # fmt: skip


@pytest.mark.parametrize("mixer", SIZES)
def test_gradients_lie_as_their_parameters_do(mixer):
    """In memory, as captured steps on a GPU need it."""
    settings = {"name": mixer, **SIZES[mixer]}
    config = resolve_config(overrides=[*TINY, *(f"mixer.{key}={value}" for key, value in settings.items())])
    state = build_state(config, torch.device("cpu"))
    build_step(state, ("off",)).advance(0, 1)
    updated = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
    assert updated
    assert all(parameter.grad.stride() == parameter.stride() for parameter in updated)
