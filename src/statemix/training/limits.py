"""Sizes and numbers that no machine can train, refused before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from statemix.tasks import Task
from statemix.training.config import Config, flatten

LARGEST = 10**10
"""Weights of a model, and tokens of a set of instances: 160 GB of either in training."""

DEEPEST = 10_000
"""Layers of a model."""

LONGEST = 10**9
"""Steps of a run."""


def check_values(config: Config) -> None:
    """ValueError naming a setting that is NaN or infinite, a mixer's argument beyond all sizes, or text that no file
    can hold."""
    for key, value in flatten(config.to_dict()).items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{key}: got {one}, expected a finite number")
            if isinstance(one, str) and not _encodable(one):
                raise ValueError(f"{key}: got {one!r}, expected text that UTF-8 can hold")
            if key.startswith("mixer.") and isinstance(one, int) and abs(one) > LARGEST:
                raise ValueError(f"{key}: got {one}, expected at most {LARGEST:.0e}")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_model_size(config: Config) -> None:
    """ValueError naming a depth or width that is too large whatever the mixer."""
    model, training = config.model, config.training
    for name, value, most in (
        ("model.depth", model.depth, DEEPEST),
        ("training.steps", training.steps, LONGEST),
    ):
        if value > most:
            raise ValueError(f"{name}: got {value}, expected at most {most}")
    _check_weights("model.dim", model.dim, _mlp_weights(config))


def check_size(config: Config, task: Task, mixer: nn.Module) -> None:
    """ValueError naming what makes the model, or a set of instances, larger than any machine's memory.

    mixer: one of the model, without memory (on the meta device).
    """
    model, training = config.model, config.training
    vocabulary = 2 * task.vocab_size * model.dim
    recurrences = model.depth * sum(one.numel() for one in mixer.parameters())
    weights = _mlp_weights(config) + vocabulary + recurrences
    if recurrences > LARGEST:
        name = max(_sizes(config.mixer), key=lambda key: config.mixer[key], default="name")
        _check_weights(f"mixer.{name}", config.mixer[name], weights)
    if vocabulary > LARGEST:
        _check_weights("task", config.task, weights)
    _check_weights("model.dim", model.dim, weights)
    learned = max(map(task.input_length, training.train_lengths or (task.length,)))
    tested = max(map(task.input_length, (task.length, *training.eval_lengths)))
    for name, length in (("train_examples", learned), ("batch_size", learned), ("eval_examples", tested)):
        count = getattr(training, name)
        if count * length > LARGEST:
            raise ValueError(
                f"training.{name}: got {count}, {count * length:.1e} tokens at length {length}, expected at most "
                f"{LARGEST:.0e} tokens"
            )


def _mlp_weights(config: Config) -> int:
    """Weights of the SwiGLUs, nearly."""
    return 8 * config.model.dim**2 * config.model.depth


def _check_weights(name: str, value: Any, weights: int) -> None:
    if weights > LARGEST:
        raise ValueError(
            f"{name}: got {value!r}, which makes {weights:.1e} weights, expected at most {LARGEST:.0e}"
        )


def _sizes(arguments: Mapping[str, Any]) -> list[str]:
    """The names of those that are whole numbers."""
    return [key for key, value in arguments.items() if isinstance(value, int) and not isinstance(value, bool)]
