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


@dataclass(frozen=True)
class ModelConfig:
    """The backbone's width, depth (pairs of mixer and SwiGLU) and norm."""

    dim: int = 128
    depth: int = 2
    norm: str = "layer"


@dataclass(frozen=True)
class TrainingConfig:
    """How a run is trained and evaluated."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 128
    """Instances a step."""
    lr: float = 1e-3
    """The learning rate after warm-up."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    schedule: str = "cosine"
    """After warm-up: "cosine" down towards `min_lr`, reached after the last step, or "constant"."""
    min_lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """On matrices and embeddings; never on biases, norms or other vectors."""
    gradient_clip: float = 1.0
    """The largest gradient norm; 0 clips nothing."""
    seed: int = 0
    """Of the weights, the order of the data and the data themselves."""
    train_examples: int = 12_800
    """Instances in the training set, drawn once."""
    train_lengths: tuple[int, ...] = ()
    """Task lengths to train on, an equal share of the instances each; empty: the task's own length alone."""
    eval_examples: int = 1_280
    """Instances in each validation and test set."""
    eval_every: int = 200
    """Steps between evaluations on the validation split."""
    eval_lengths: tuple[int, ...] = ()
    """Task lengths to evaluate at; the training length is always among them."""
    log_every: int = 20
    """Steps between lines of training metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    stop_accuracy: float = 0.0
    """Stop once the validation accuracy at the training length reaches this; 0 never stops early."""
    precision: str = "auto"
    """"auto": bfloat16 autocast on a GPU that has it, float32 elsewhere; or one of them by name."""
    device: str = "auto"
    """"auto": a GPU when there is one, else the CPU; or a name such as "cuda:1"."""
    capture: str = "auto"
    """How steps run on a GPU: "off" launches each operation, "graph" replays the whole step as a CUDA graph,
    "compiled" does so after torch.compile; "auto" is the fastest that works (on the CPU: "off")."""
    tensorboard: str = "auto"
    """TensorBoard events too: "on", "off", or "auto": when TensorBoard is installed."""


@dataclass(frozen=True)
class Config:
    """A whole run. `task` and `mixer` name what is built (key "name") and its arguments (all other keys)."""

    name: str = "run"
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
