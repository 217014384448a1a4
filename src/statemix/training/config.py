"""The configuration of a run: what is trained, on what, and how. Every setting is declared once, with its range."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from statemix.models import NORMS

RUNTIME_KEYS = ("training.capture", "training.checkpoint_every", "training.tensorboard")
"""Settings of how a run is carried out, not of what it computes: a run may be resumed with other values."""

CAPTURES, PRECISIONS = ("auto", "off", "graph", "compiled"), ("auto", "float32", "bfloat16")

MAX_STEPS, MAX_DEPTH, MAX_DIM = 10**9, 10_000, 30_000

MAX_INT = 2**63 - 1
"""Of any setting: what torch can count."""

SEEDS = 2**31
"""Seeds lie below this: the epochs of a run count on from seed · 2³² in 64 bits."""


class Configuration(Protocol):
    """A configuration of any kind of run."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        ...


def setting(default: Any, meaning: str, unit: str = "", **limits: Any) -> Any:
    """A field of a configuration, with what `statemix train --help` says of it and what it may be.

    limits: `low` and `high` (both included), `choices`, and `item`, the type of a tuple's elements.
    """
    return field(default=default, metadata={"meaning": meaning, "unit": unit, "limits": limits})


def check_value(name: str, value: Any) -> None:
    """ValueError for a number that is not finite, or too large for torch, and for text that no file can hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}: got {value!r}, expected text that UTF-8 can hold") from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: got {value}, expected a finite number")
    elif isinstance(value, int) and abs(value) > MAX_INT:
        raise ValueError(f"{name}: got {value}, expected at most {MAX_INT:.0e}")


def _scalar(name: str, value: Any, kind: type, limits: Mapping[str, Any]) -> Any:
    """`value` as `kind`, within its limits; an int passes for a float. ValueError naming the setting."""
    if isinstance(value, bool) is not (kind is bool) or not isinstance(
        value, (int, float) if kind is float else kind
    ):
        raise ValueError(f"{name}: got {value!r}, expected {kind.__name__}")
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices")
    if choices is not None and value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, choices))}")
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}: got {value}, expected {span}")
    check_value(name, value)
    return kind(value)


class Section:
    """A group of settings; constructing one checks them all."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _setting(f"{self.section}.{one.name}", getattr(self, one.name), one)
            object.__setattr__(self, one.name, value)


def _setting(name: str, value: Any, one: dataclasses.Field[Any]) -> Any:
    limits, default = one.metadata["limits"], one.default
    if not isinstance(default, tuple):
        return _scalar(name, value, type(default), limits)
    kind, size = limits["item"], len(default)
    if not isinstance(value, (list, tuple)) or (size and len(value) != size):
        raise ValueError(
            f"{name}: got {value!r}, expected a list of {f'{size} ' * bool(size)}{kind.__name__}s"
        )
    return tuple(_scalar(name, item, kind, limits) for item in value)


@dataclass(frozen=True)
class ModelConfig(Section):
    """The backbone's width, depth and norm."""

    section = "model"

    dim: int = setting(128, "width of the residual stream", "channels", low=1, high=MAX_DIM)
    depth: int = setting(2, "layers, each a mixer and a SwiGLU", "layers", low=1, high=MAX_DEPTH)
    mlp: bool = setting(True, "whether a SwiGLU stands behind each mixer")
    norm: str = setting("layer", 'norm before each mixer and SwiGLU: "layer" or "rms"', choices=tuple(NORMS))


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How a run is trained and evaluated."""

    section = "training"

    steps: int = setting(2000, "length of the training", "optimiser steps", low=1, high=MAX_STEPS)
    batch_size: int = setting(128, "size of a batch", "instances", low=1)
    lr: float = setting(1e-3, "learning rate after warm-up", low=0)
    warmup: int = setting(
        100, "rise of the learning rate from 0; unless given, at most training.steps", "steps", low=0
    )
    schedule: str = setting(
        "cosine",
        '"cosine" falls to min_lr at the last step, "constant" stays',
        choices=("cosine", "constant"),
    )
    min_lr: float = setting(1e-6, "learning rate at the end of the cosine", low=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.999), "AdamW's decay rates of both moments", item=float, low=0, high=math.nextafter(1, 0)
    )
    weight_decay: float = setting(0.0, "AdamW's, on matrices and embeddings, not on biases and norms", low=0)
    gradient_clip: float = setting(1.0, "largest norm of the gradient; 0 clips nothing", low=0)
    seed: int = setting(0, "of the weights, the data and their order", low=-SEEDS, high=SEEDS - 1)
    train_examples: int = setting(12_800, "size of the training set, drawn once", "instances", low=1)
    train_lengths: tuple[int, ...] = setting(
        (), "task lengths to train on, in equal shares; empty: the task's own", "positions", item=int
    )
    eval_examples: int = setting(1_280, "size of each validation and test set", "instances", low=1)
    eval_tokens: int = setting(
        0,
        "most positions tested at a length, so that long ones have fewer instances; 0: any number",
        "positions",
        low=0,
    )
    eval_every: int = setting(200, "how often the validation split is evaluated", "steps", low=1)
    eval_lengths: tuple[int, ...] = setting(
        (), "task lengths to test at; the training length is always among them", "positions", item=int
    )
    log_every: int = setting(20, "how often training metrics are written", "steps", low=1)
    checkpoint_every: int = setting(200, "how often a checkpoint is written", "steps", low=1)
    stop_accuracy: float = setting(
        0.0, "validation accuracy that ends the training; 0 never stops early", "from 0 to 1", low=0
    )
    precision: str = setting(
        "auto",
        '"bfloat16" (autocast), "float32", or "auto": bfloat16 on a GPU that has it',
        choices=PRECISIONS,
    )
    device: str = setting(
        "auto", 'such as "cpu" or "cuda:1", or "auto": a GPU when there is one, else the CPU'
    )
    capture: str = setting(
        "auto",
        'how steps run on a GPU: "off" launches each operation, "graph" replays the step as a CUDA graph, "compiled" '
        'does so after torch.compile, "auto" is the fastest that works (on the CPU: "off")',
        choices=CAPTURES,
    )
    tensorboard: str = setting(
        "auto",
        'write TensorBoard events: "on", "off", or "auto": when it is installed',
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class Config:
    """A whole run. `task` and `mixer` name what is built (key "name") and its arguments (all other keys).

    Constructing one checks every value by itself; `resolve_config` and `train` also check that they fit together.
    """

    name: str = setting("run", "what the run is called while it trains; a preset's name unless given")
    task: dict[str, Any] = field(default_factory=lambda: {"name": "permutation"})
    mixer: dict[str, Any] = field(default_factory=lambda: {"name": "bdlru", "block_size": 4})
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    version: str = ""
    """The statemix that resolved this configuration."""

    def __post_init__(self) -> None:
        for name in ("name", "version"):
            _scalar(name, getattr(self, name), str, {})
        for name in ("task", "mixer"):
            table = getattr(self, name)
            if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
                raise ValueError(f'{name}: got {table!r}, expected a table with a "name"')
            for key, value in flatten(table, f"{name}.").items():
                for one in value if isinstance(value, list) else [value]:
                    check_value(key, one)
            object.__setattr__(self, name, dict(table))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Config:
        """The reverse of `to_dict`. Errors: ValueError naming an unknown key, or a value that cannot be."""
        built = dict(content)
        for kind in (ModelConfig, TrainingConfig):
            if (name := kind.section) in content:
                if not isinstance(content[name], Mapping):
                    raise ValueError(f"{name}: got {content[name]!r}, expected a table of settings")
                built[name] = build_section(f"{name}.", content[name], kind)
        return build_section("", built, cls)


def build_section(prefix: str, content: Mapping[str, Any], kind: type) -> Any:
    """`kind` of the settings in a table, whose names begin with `prefix`. ValueError for one that `kind` has not."""
    known = [one.name for one in dataclasses.fields(kind)]
    for key in content:
        if key not in known:
            raise ValueError(f"{prefix}{key}: unknown setting, expected one of {', '.join(known)}")
    return kind(**content)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
