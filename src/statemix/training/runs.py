"""Finished and unfinished runs, read back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from statemix.training.build import autocast_of, device_of, model_of, task_of
from statemix.training.checkpoint import load_weights
from statemix.training.config import Config
from statemix.training.data import evaluation_set
from statemix.training.evaluation import Scores, evaluate
from statemix.training.files import RunError, read_json
from statemix.training.folder import RunFolder


def load_config(folder: str | Path) -> Config:
    """The configuration saved with a run. RunError when there is none or it is not one of ours."""
    path = RunFolder(folder).config
    try:
        return Config.from_dict(read_json(path))
    except ValueError as error:
        raise RunError(f"{path} is not a configuration of this version: {error}") from None


def load_run(folder: str | Path) -> tuple[Config, nn.Module]:
    """The configuration and the trained model of a run, on the CPU, in evaluation mode.

    Errors: RunError for a folder that is no run, a run without weights yet, or a damaged or foreign file.
    """
    config, run = load_config(folder), RunFolder(folder)
    if not run.weights.exists():
        raise RunError(
            f"{run.path} has no {run.weights.name}: the run has not come to an end, or its weights were not kept"
        )
    model = model_of(config, task_of(config))
    load_weights(run.weights, model)
    return config, model.eval()


def evaluate_run(
    folder: str | Path, lengths: Iterable[int] = (), examples: int | None = None, split: str = "test"
) -> dict[int, Scores]:
    """Scores of a trained run at task lengths (default: the training length), keyed by length.

    examples: how many instances per length (default: the run's own number). Nothing is written.
    Errors: ValueError for a length the task does not have; RunError as `load_run`.
    """
    config, model = load_run(folder)
    task, training, device = task_of(config), config.training, device_of(config)
    if examples is not None and examples < 1:
        raise ValueError(f"examples: got {examples}, expected at least 1")
    model.to(device)
    results = {}
    with torch.no_grad():
        for length in [task.check_length(length) for length in lengths] or [task.length]:
            drawn = evaluation_set(
                task, length, split, examples or training.eval_examples, training.seed, device
            )
            results[length] = evaluate(model, drawn, training.batch_size, autocast_of(training, device))
    return results
