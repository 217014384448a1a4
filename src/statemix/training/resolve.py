"""Defaults <- preset <- TOML file <- key=value: one complete configuration, checked once."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from statemix.nn import build_mixer, mixers_in_turn
from statemix.tasks import TASKS, Task, get_task
from statemix.training.build import eval_examples, eval_lengths
from statemix.training.config import Config, TrainingConfig, flatten
from statemix.training.presets import PRESETS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - what 3.11 took into the standard library
    import tomli as tomllib

MAX_NUMBERS = 10**10
"""Weights of a model, or tokens of a set of instances: 160 GB of either in training."""


def resolve_config(
    preset: str | None = None, file: str | Path | None = None, overrides: Iterable[str] = ()
) -> Config:
    """A complete configuration: defaults, then a preset, then a TOML file, then "key=value" settings.

    Keys of `overrides` are dotted ("training.lr=3e-4", "mixer.block_size=4", "task.n=4"); values are TOML, and a
    bare word is a string. A later layer that names another task or mixer starts its arguments afresh. A warm-up that
    neither the file nor the settings give is cut to the steps.
    Everything that can be checked before work begins is. Errors: ValueError naming the setting; OSError when the
    file cannot be read.

    >>> config = resolve_config("demo-bdlru", overrides=["training.steps=50", "mixer.block_size=2"])
    >>> config.training.steps, config.training.warmup, config.mixer["block_size"]
    (50, 50, 2)
    """
    from statemix import __version__

    content: dict[str, Any] = Config().to_dict()
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(PRESETS)}")
        content = merge(content, PRESETS[preset] | {"name": preset})
    given: dict[str, Any] = {} if file is None else read_toml(Path(file))
    content = merge(content, given)
    for override in overrides:
        one = parse_override(override)
        content, given = merge(content, one), merge(given, one)
    config = Config.from_dict(content | {"version": __version__, "task": _resolve_task(content["task"])})
    if "training.warmup" not in flatten(given):
        config = shorten_warmup(config)
    check(config)
    return config


def _resolve_task(table: Any) -> Any:
    """A task's table without files: what they say stands in their place. Wrong ones are left to the checks."""
    kind = TASKS.get(str(table.get("name"))) if isinstance(table, Mapping) else None
    if kind is None:
        return table
    options = kind.resolve({key: value for key, value in table.items() if key != "name"})
    return {"name": kind.name, **options}


def shorten_warmup(config: Config) -> Config:
    """The configuration with a warm-up no longer than the training."""
    training = config.training
    return replace(config, training=replace(training, warmup=min(training.warmup, training.steps)))


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. ValueError for one that is none."""
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


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`update` over `base`, table by table."""
    merged = dict(base)
    for key, value in update.items():
        before = merged.get(key)
        if not isinstance(before, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        elif "name" in value and before.get("name") != value["name"]:
            merged[key] = dict(value)  # another task or mixer: the old one's arguments mean nothing to it
        else:
            merged[key] = merge(before, value)
    return merged


def check(config: Config) -> None:
    """Whether the settings fit together and into a machine's memory: ValueError naming the setting."""
    training = config.training
    if training.warmup > training.steps:
        raise ValueError(f"training.warmup: got {training.warmup}, expected at most steps = {training.steps}")
    task = get_task(**config.task)
    _check_lengths(training, task)
    _check_weights(config, task)
    learned = max(map(task.input_length, training.train_lengths or (task.length,)))
    counts = [
        ("train_examples", learned, training.train_examples),
        ("batch_size", learned, training.batch_size),
    ]
    counts += [
        ("eval_examples", task.input_length(tested), eval_examples(config, task, tested))
        for tested in eval_lengths(config, task)
    ]
    for name, length, count in counts:
        if count * length > MAX_NUMBERS:
            raise ValueError(
                f"training.{name}: got {count}, {count * length:.1e} tokens at length {length}, expected at most "
                f"{MAX_NUMBERS:.0e} tokens"
            )


def _check_lengths(training: TrainingConfig, task: Task) -> None:
    for name in ("train_lengths", "eval_lengths"):
        lengths = getattr(training, name)
        try:
            _ = [task.check_length(length) for length in lengths]
        except ValueError as error:
            raise ValueError(f"training.{name}: {error}") from None
        if len(set(lengths)) < len(lengths):
            raise ValueError(f"training.{name}: got {list(lengths)}, expected every length once")
    longest = max(task.length, *training.eval_lengths, 0)
    if task.backbone == "autoencoder" and max(training.train_lengths, default=0) > longest:
        raise ValueError(
            f"training.train_lengths: got {list(training.train_lengths)}, expected none above the task's length and "
            "eval_lengths: the model has no positions beyond"
        )
    if training.train_examples < (count := len(training.train_lengths)):
        raise ValueError(
            f"training.train_examples: got {training.train_examples}, expected at least one for each of the {count} "
            "train_lengths"
        )


def _check_weights(config: Config, task: Task) -> None:
    """Those of the whole model, nearly, from its mixers without storage."""
    model = config.model
    try:
        numbers = _mixer_weights(json.dumps(config.mixer, default=str), model.depth, model.dim)
    except TypeError as error:
        raise ValueError(f"mixer: {error}") from None
    except (RuntimeError, OverflowError) as error:  # sizes that torch cannot even multiply
        reason = str(error).partition("\n")[0]
        raise ValueError(f"mixer: got {config.mixer!r}, expected a size that can be: {reason}") from None
    weights = model.depth * (8 * model.dim**2 + numbers) + 2 * task.vocab_size * model.dim
    if weights > MAX_NUMBERS:
        raise ValueError(
            f"model: got {weights:.1e} weights (dim {model.dim}, depth {model.depth}, mixer {config.mixer}, "
            f"{task.vocab_size} tokens), expected at most {MAX_NUMBERS:.0e}"
        )


@functools.lru_cache(maxsize=1024)
def _mixer_weights(mixer: str, depth: int, dim: int) -> int:
    """Weights of a mixer, the mean of those of all layers; once for the many runs of a sweep that share it."""
    turns = mixers_in_turn(json.loads(mixer), depth)
    mixers = [build_mixer(**{**one, "dim": dim, "device": "meta"}) for one in turns]
    return sum(one.numel() for built in mixers for one in built.parameters()) // len(mixers)
