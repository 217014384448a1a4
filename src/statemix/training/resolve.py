"""Defaults <- preset <- TOML file <- key=value: one complete, checked configuration."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from statemix.models import NORMS
from statemix.nn import build_mixer
from statemix.tasks import get_task
from statemix.training.config import CAPTURES, PRECISIONS, SCHEDULES, SWITCH, Config, TrainingConfig, flatten
from statemix.training.limits import check_model_size, check_size, check_values
from statemix.training.presets import PRESETS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - what 3.11 took into the standard library
    import tomli as tomllib


SEEDS = 2**31
"""Seeds lie below this: the epochs of a run count on from seed · 2³² in 64 bits."""


def resolve_config(
    preset: str | None = None, file: str | Path | None = None, overrides: Iterable[str] = ()
) -> Config:
    """A complete configuration: defaults, then a preset, then a TOML file, then "key=value" settings.

    Keys of `overrides` are dotted ("training.lr=3e-4", "mixer.block_size=4", "task.n=4"); values are TOML, and a
    bare word is a string. A later layer that names another task or mixer starts its arguments afresh. A warm-up that
    neither the file nor the settings give is cut to the steps.
    Everything that can be checked before work begins is. Errors: ValueError naming the setting; OSError when the
    file cannot be read.
    """
    content: dict[str, Any] = Config().to_dict()
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(PRESETS)}")
        content = _merge(content, PRESETS[preset] | {"name": preset})
    given: dict[str, Any] = {} if file is None else _read(Path(file))
    content = _merge(content, given)
    for override in overrides:
        one = parse_override(override)
        content, given = _merge(content, one), _merge(given, one)
    config = Config.from_dict(content | {"version": _version()})
    if "training.warmup" not in flatten(given):
        config = shorten_warmup(config)
    check(config)
    return config


def shorten_warmup(config: Config) -> Config:
    """A warm-up that nobody has given is no longer than the training."""
    training = config.training
    return replace(config, training=replace(training, warmup=min(training.warmup, max(0, training.steps))))


def _version() -> str:
    from statemix import __version__

    return __version__


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config: {path} is not TOML: {error}") from None


def parse_override(text: str) -> dict[str, Any]:
    """ "training.lr=3e-4" -> {"training": {"lr": 0.0003}}. ValueError unless it reads key=value."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(name.isidentifier() for name in names):
        raise ValueError(f"setting: got {text!r}, expected key=value such as training.lr=3e-4")
    nested: Any = _value(value.strip())
    for name in reversed(names):
        nested = {name: nested}
    return nested  # type: ignore[no-any-return]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`update` over `base`, table by table."""
    merged = dict(base)
    for key, value in update.items():
        before = merged.get(key)
        if not isinstance(before, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        elif "name" in value and before.get("name") != value["name"]:
            merged[key] = dict(value)  # another task or mixer: the old one's arguments mean nothing to it
        else:
            merged[key] = _merge(before, value)
    return merged


def check_numbers(training: TrainingConfig) -> None:
    """Rates and the seed, by which the runs of a sweep differ: ValueError naming the setting."""
    for name in ("lr", "min_lr", "weight_decay", "gradient_clip", "stop_accuracy"):
        if not 0 <= getattr(training, name) < math.inf:
            raise ValueError(
                f"training.{name}: got {getattr(training, name)}, expected at least 0 and finite"
            )
    if not -SEEDS <= training.seed < SEEDS:
        raise ValueError(f"training.seed: got {training.seed}, expected -{SEEDS} to {SEEDS - 1}")


def check(config: Config) -> None:
    """Build what is cheap to build, and look at every number: ValueError naming the setting."""
    training, model = config.training, config.model
    check_values(config)
    check_numbers(training)
    for name, least in (("steps", 1), ("batch_size", 1), ("train_examples", 1), ("eval_examples", 1),
                        ("eval_every", 1), ("log_every", 1), ("checkpoint_every", 1), ("warmup", 0)):  # fmt: skip
        if getattr(training, name) < least:
            raise ValueError(f"training.{name}: got {getattr(training, name)}, expected at least {least}")
    if training.warmup > training.steps:
        raise ValueError(f"training.warmup: got {training.warmup}, expected at most steps = {training.steps}")
    for name, value, known in (("training.schedule", training.schedule, SCHEDULES),
                               ("training.precision", training.precision, PRECISIONS),
                               ("training.capture", training.capture, CAPTURES),
                               ("training.tensorboard", training.tensorboard, SWITCH),
                               ("model.norm", model.norm, tuple(NORMS))):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, known))}")
    if not all(0 <= beta < 1 for beta in training.betas):
        raise ValueError(
            f"training.betas: got {list(training.betas)}, expected two numbers from 0 to below 1"
        )
    for name in ("dim", "depth"):
        if getattr(model, name) < 1:
            raise ValueError(f"model.{name}: got {getattr(model, name)}, expected at least 1")
    task = get_task(**config.task)
    for name in ("train_lengths", "eval_lengths"):
        lengths = getattr(training, name)
        try:
            _ = [task.check_length(length) for length in lengths]
        except ValueError as error:
            raise ValueError(f"training.{name}: {error}") from None
        if len(set(lengths)) < len(lengths):
            raise ValueError(f"training.{name}: got {list(lengths)}, expected every length once")
    if task.backbone == "autoencoder" and max(training.train_lengths, default=0) > max(
        task.length, *training.eval_lengths, 0
    ):
        raise ValueError(
            f"training.train_lengths: got {list(training.train_lengths)}, expected none above the task's length and "
            "eval_lengths: the model has no positions beyond"
        )
    if training.train_examples < len(training.train_lengths):
        raise ValueError(
            f"training.train_examples: got {training.train_examples}, expected one at least for each of the "
            f"{len(training.train_lengths)} train_lengths"
        )
    check_model_size(config)
    try:
        mixer = build_mixer(**config.mixer, dim=model.dim, device="meta")
    except TypeError as error:
        raise ValueError(f"mixer: {error}") from None
    except (RuntimeError, OverflowError) as error:  # sizes that torch cannot even multiply
        reason = str(error).partition("\n")[0]
        raise ValueError(f"mixer: got {config.mixer!r}, expected a size that can be: {reason}") from None
    check_size(config, task, mixer)
