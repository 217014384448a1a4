"""Optimiser steps: launched one by one from the host, or (`cuda_graph`) whole steps replayed on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statemix.tasks import Examples
from statemix.training.build import build_autocast, build_model, build_optimizer, build_task, learning_rate
from statemix.training.config import Config, TrainingConfig
from statemix.training.data import TrainingSet
from statemix.training.evaluation import Scores, evaluate, scores


class TrainingState(NamedTuple):
    """Everything that a step reads and writes."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    data: TrainingSet
    training: TrainingConfig
    autocast: AbstractContextManager[Any]
    totals: Tensor
    """float64 [3]: loss, correct positions and counted positions, summed over steps."""


def build_state(config: Config, device: torch.device) -> TrainingState:
    """Model, optimiser and data of a configuration on a device, before the first step."""
    task, training = build_task(config), config.training
    model = build_model(config, task).to(device)
    return TrainingState(
        model, build_optimizer(model, training), TrainingSet(task, config, device), training,
        build_autocast(training, device), torch.zeros(3, dtype=torch.float64, device=device),
    )  # fmt: skip


class Steps:
    """A way to run steps: here every operation is launched by the host.

    capture: a value of `training.capture`. optimizer: whose state a checkpoint keeps.
    """

    capture = "off"

    def __init__(self, state: TrainingState) -> None:
        self._state, self.optimizer = state, state.optimizer

    def advance(self, step: int, most: int) -> int:
        """Run at least one and at most `most` steps from `step` on; returns how many."""
        state, training = self._state, self._state.training
        inputs, targets = state.data.batch(step)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        with state.autocast:
            logits, _ = state.model(inputs)
        loss, numbers = scores(logits, targets)
        state.optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), training.gradient_clip)
        state.optimizer.step()
        state.totals.add_(numbers)
        return 1

    def evaluator(self, examples: Examples) -> Callable[[], Scores]:
        """A function that scores the model as it then is."""
        state = self._state
        return lambda: evaluate(state.model, examples, state.training.batch_size, state.autocast)


def build_step(state: TrainingState, captures: tuple[str, ...], start: int = 0) -> Steps:
    """The first of the ways to run steps (`captures_of`) that works, ready for the step `start`.

    A warning tells of one that does not work; a single way that does not work raises its error.
    """
    from statemix.training.cuda_graph import GraphSteps

    for capture in captures:
        if capture == "off":
            break
        try:
            return GraphSteps(state, capture, start)
        except Exception as error:
            if capture == captures[-1]:
                raise
            reason = (str(error).splitlines() or [""])[0]
            warnings.warn(
                f"training.capture: {capture!r} does not work here ({type(error).__name__}: {reason})",
                RuntimeWarning,
                stacklevel=2,
            )
    return Steps(state)
