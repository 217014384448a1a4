"""Finished and unfinished runs, read back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from statemix.training.build import build_autocast, build_device, build_model, build_task, eval_examples
from statemix.training.checkpoint import load_weights, read_metadata
from statemix.training.config import Config
from statemix.training.data import evaluation_set
from statemix.training.evaluation import Scores, evaluate
from statemix.training.files import RunError, read_json
from statemix.training.folder import RunFolder, run_id
from statemix.training.resolve import check


def load_config(folder: str | Path) -> Config:
    """The configuration saved with a run. RunError when there is none, or it is damaged or of an unknown version."""
    return _read_config(RunFolder(folder))[0]


def _read_config(run: RunFolder) -> tuple[Config, str]:
    """The configuration of a run, checked, and what the run's other files carry (`run_id`)."""
    content = read_json(run.config)
    try:
        config = Config.from_dict(content)
        check(config)
    except ValueError as error:
        raise RunError(f"{run.config} is not a configuration of this version: {error}") from None
    return config, run_id(content)


def load_run(folder: str | Path) -> tuple[Config, nn.Module]:
    """The configuration and the trained model of a run, on the CPU, in evaluation mode.

    The weights of a run that was interrupted are those of its last step so far: a RuntimeWarning says so.
    Errors: RunError for a folder that is no run, a run without weights yet, or a damaged or foreign file; it is a
    ValueError too when the folder or its configuration does not exist.
    """
    run = RunFolder(folder)
    config, name = _read_config(run)
    if not run.weights.exists():
        raise RunError(f"{run.path} has no {run.weights.name}: {_standing(run, config)}")
    model = build_model(config, build_task(config))
    load_weights(run.weights, model, name)
    if run.finished() is None:
        message = f"{run.path} is not finished: {_standing(run, config)}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return config, model.eval()


def _standing(run: RunFolder, config: Config) -> str:
    """How far a run has come that has not ended, and what to do."""
    step = read_metadata(run.checkpoint)["position"]["step"] if run.checkpoint.exists() else 0
    return (
        f"the run has not come to an end (saved at step {step} of {config.training.steps}), or its weights were not "
        "kept; `statemix train` with the same settings and folder resumes it"
    )


def evaluate_run(
    folder: str | Path, lengths: Iterable[int] = (), examples: int | None = None, split: str = "test"
) -> dict[int, Scores]:
    """Scores of a trained run at task lengths (default: the training length), keyed by length.

    examples: how many instances per length (default: the run's own number). Nothing is written. It runs on the
    device of the configuration or, with a RuntimeWarning, on what "auto" means here if that device is not there.
    Errors: ValueError for a length the task does not have; RunError as `load_run`.
    """
    config, model = load_run(folder)
    task, training, device = build_task(config), config.training, _device_here(config)
    if examples is not None and examples < 1:
        raise ValueError(f"examples: got {examples}, expected at least 1")
    model.to(device)
    results = {}
    with torch.no_grad():
        for length in [task.check_length(length) for length in lengths] or [task.length]:
            count = examples or eval_examples(config, task, length)
            drawn = evaluation_set(task, length, split, count, training.seed, device)
            results[length] = evaluate(model, drawn, training.batch_size, build_autocast(training, device))
    return results


def _device_here(config: Config) -> torch.device:
    """The device of a configuration, or the one that there is here."""
    try:
        return build_device(config)
    except ValueError as error:
        device = build_device(replace(config, training=replace(config.training, device="auto")))
        warnings.warn(f"{error}; evaluating on {str(device)!r}", RuntimeWarning, stacklevel=3)
        return device
