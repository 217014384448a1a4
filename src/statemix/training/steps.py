"""Optimiser steps: one after another from the host, or (`captured`) whole steps replayed on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from statemix.tasks import Examples
from statemix.training.build import learning_rate
from statemix.training.config import TrainingConfig
from statemix.training.data import TrainingSet
from statemix.training.evaluation import Scores, evaluate, scores


class Job(NamedTuple):
    """What is trained: everything a step reads and writes."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    data: TrainingSet
    training: TrainingConfig
    autocast: AbstractContextManager[Any]
    totals: Tensor
    """float64 [3]: loss, correct positions and counted positions, summed over steps."""


class Steps(Protocol):
    """A way to run steps."""

    capture: str
    optimizer: torch.optim.AdamW
    """Whose state a checkpoint keeps."""

    def advance(self, step: int, most: int) -> int:
        """Run at least one and at most `most` steps from `step` on; returns how many."""

    def evaluator(self, examples: Examples) -> Callable[[], Scores]:
        """A function that scores the model as it then is."""


class Plain:
    """Every operation is launched by the host."""

    capture = "off"

    def __init__(self, job: Job) -> None:
        self._job, self.optimizer = job, job.optimizer

    def advance(self, step: int, most: int) -> int:
        """One step."""
        job, training = self._job, self._job.training
        inputs, targets = job.data.batch(step)
        for group in job.optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        with job.autocast:
            logits, _ = job.model(inputs)
        loss, correct, counted = scores(logits, targets)
        job.optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip:
            nn.utils.clip_grad_norm_(job.model.parameters(), training.gradient_clip)
        job.optimizer.step()
        numbers = torch.stack([loss.detach().double(), correct.double(), counted.double()])
        job.totals.add_(numbers)
        return 1

    def evaluator(self, examples: Examples) -> Callable[[], Scores]:
        """As `evaluate`."""
        job = self._job
        return lambda: evaluate(job.model, examples, job.training.batch_size, job.autocast)


def steps_of(job: Job, captures: tuple[str, ...], start: int) -> Steps:
    """The first of the ways that works, ready for the step `start`; a warning tells of one that does not.

    A single way that does not work raises its error.
    """
    from statemix.training.captured import Captured

    for capture in captures:
        if capture == "off":
            break
        try:
            return Captured(job, capture, start)
        except Exception as error:
            if capture == captures[-1]:
                raise
            reason = (str(error).splitlines() or [""])[0]
            warnings.warn(
                f"training.capture: {capture!r} does not work here ({type(error).__name__}: {reason})",
                RuntimeWarning,
                stacklevel=2,
            )
    return Plain(job)
