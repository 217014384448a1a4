"""The configuration of a run: what is trained, on what, and how."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
SWITCH = ("auto", "on", "off")
CAPTURES = ("auto", "off", "graph", "compiled")

MANNER = ("training.capture", "training.checkpoint_every", "training.tensorboard")
"""Settings of how a run is carried out, not of what it is: it may go on with others."""


def setting(default: Any, meaning: str, unit: str = "") -> Any:
    """A field of a configuration with what `statemix train --help` says of it."""
    return field(default=default, metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True)
class ModelConfig:
    """The backbone's width, depth and norm."""

    dim: int = setting(128, "width of the residual stream", "channels")
    depth: int = setting(2, "layers, each a mixer and a SwiGLU", "layers")
    norm: str = setting("layer", 'norm before each mixer and SwiGLU: "layer" or "rms"')


@dataclass(frozen=True)
class TrainingConfig:
    """How a run is trained and evaluated."""

    steps: int = setting(2000, "length of the training", "optimiser steps")
    batch_size: int = setting(128, "size of a batch", "instances")
    lr: float = setting(1e-3, "learning rate after warm-up")
    warmup: int = setting(
        100, "how long the learning rate rises from 0; unless it is given, at most training.steps", "steps"
    )
    schedule: str = setting(
        "cosine", 'learning rate after warm-up: "cosine" falls to min_lr at the last step, "constant" stays'
    )
    min_lr: float = setting(1e-6, "learning rate at the end of the cosine")
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW's decay rates of both moments")
    weight_decay: float = setting(
        0.0, "AdamW's, on matrices and embeddings; never on biases, norms or other vectors"
    )
    gradient_clip: float = setting(1.0, "largest norm of the gradient; 0 clips nothing")
    seed: int = setting(0, "of the weights, the order of the data and the data themselves")
    train_examples: int = setting(12_800, "size of the training set, drawn once", "instances")
    train_lengths: tuple[int, ...] = setting(
        (),
        "task lengths to train on, an equal share of the instances each; empty: the task's own",
        "positions",
    )
    eval_examples: int = setting(1_280, "size of each validation and test set", "instances")
    eval_every: int = setting(200, "how often the validation split is evaluated", "steps")
    eval_lengths: tuple[int, ...] = setting(
        (), "task lengths to test at; the training length is always among them", "positions"
    )
    log_every: int = setting(20, "how often training metrics are written", "steps")
    checkpoint_every: int = setting(200, "how often a checkpoint is written", "steps")
    stop_accuracy: float = setting(
        0.0,
        "stop once the validation accuracy at the training length reaches this; 0 never stops early",
        "from 0 to 1",
    )
    precision: str = setting(
        "auto",
        '"bfloat16" (autocast), "float32", or "auto": bfloat16 on a GPU that has it, float32 elsewhere',
    )
    device: str = setting(
        "auto", 'a name such as "cpu" or "cuda:1", or "auto": a GPU when there is one, else the CPU'
    )
    capture: str = setting(
        "auto",
        'how steps run on a GPU: "off" launches each operation, "graph" replays the step as a CUDA graph, "compiled" '
        'does so after torch.compile, "auto" is the fastest that works (on the CPU: "off")',
    )
    tensorboard: str = setting(
        "auto", 'write TensorBoard events too: "on", "off", or "auto": when TensorBoard is installed'
    )


@dataclass(frozen=True)
class Config:
    """A whole run. `task` and `mixer` name what is built (key "name") and its arguments (all other keys)."""

    name: str = setting("run", "what the run is called while it trains; a preset's name unless it is given")
    task: dict[str, Any] = field(default_factory=lambda: {"name": "permutation"})
    mixer: dict[str, Any] = field(default_factory=lambda: {"name": "bdlru", "block_size": 4})
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    version: str = ""
    """The statemix that resolved this configuration."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON."""
        training = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.training).items()}
        sections = {"task": dict(self.task), "mixer": dict(self.mixer), "model": dict(vars(self.model))}
        return {**vars(self), **sections, "training": training}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Config:
        """The reverse of `to_dict`. Errors: ValueError naming an unknown key, or a value of the wrong type."""
        return _from_dict(cls, content, "")


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


_SECTIONS = {"model": ModelConfig, "training": TrainingConfig}


_hints = functools.cache(typing.get_type_hints)


def _from_dict(cls: type, content: Any, prefix: str) -> Any:
    if not isinstance(content, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'config'}: got {content!r}, expected a table of settings")
    known = _hints(cls)
    for key in content:
        if key not in known:
            raise ValueError(f"{prefix}{key}: unknown setting, expected one of {', '.join(known)}")
    values = {}
    for key, value in content.items():
        section = _SECTIONS.get(key) if cls is Config else None
        if section:
            values[key] = _from_dict(section, value, f"{key}.")
        else:
            values[key] = _typed(f"{prefix}{key}", value, known[key])
    return cls(**values)


def _typed(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` (an int passes for a float, a list for a tuple), or ValueError."""
    origin = typing.get_origin(kind)
    if origin is dict:
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError(f'{name}: got {value!r}, expected a table with a "name"')
        return dict(value)
    if origin is tuple:
        item, *rest = typing.get_args(kind)
        ragged = (
            rest
            and rest[0] is not Ellipsis
            and isinstance(value, (list, tuple))
            and len(value) != len(rest) + 1
        )
        if not isinstance(value, (list, tuple)) or ragged:
            raise ValueError(f"{name}: got {value!r}, expected a list of {item.__name__}s")
        return tuple(_typed(name, one, item) for one in value)
    accepted: types.UnionType | type = int | float if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}: got {value!r}, expected {kind.__name__}")
    return kind(value)
