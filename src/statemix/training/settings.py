"""Every setting of a run with its default and meaning, for `--help` and completion; a configuration as TOML."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from statemix.nn import MIXERS
from statemix.tasks import TASKS
from statemix.training.config import Config, Configuration, ModelConfig, TrainingConfig


class Setting(NamedTuple):
    """What may be set: its dotted name, its default as TOML (or in words), what it means, and its unit."""

    name: str
    default: str
    meaning: str
    unit: str = ""

    def __str__(self) -> str:
        unit = f"{self.unit}; " if self.unit else ""
        return f"{self.meaning} ({unit}default {self.default})"


ARGUMENTS: dict[str, str] = {
    "block_size": "m, the size of a block; its transitions are m × m",
    "order": "m, the past states that a channel looks back over",
    "num_blocks": "N, blocks; so that N m is about the width",
    "num_channels": "N, channels; so that N m is about the width",
    "normalization": "of each row of gates: softmax, sigmoid, relu, tanh, linear, silu or none",
    "selective": "whether the input chooses the gates; false: they are parameters, the same at every step",
    "hard": "whether each channel copies one channel of its block, or one of its past states, or takes its value",
    "learned_initial_state": "whether sequences start from a parameter; false: from zeros",
    "gate_bias": "what every input gate starts with; negative values make new blocks remember longer",
    "transition_bias": 'what all other gates start with; positive values make "relu" remember from the start',
    "readout": '"window" projects the last m states, "newest" the last one',
    "backend": 'what computes it: "auto" takes the fastest that can run',
}
"""What the arguments of BD-LRU and H-LRU mean. Another mixer's class may have a table `ARGUMENTS` of its own."""

NOT_SET = ("dim", "device", "dtype")
"""Arguments of every mixer that follow from other settings."""


def groups() -> dict[str, list[Setting]]:
    """Every setting by what it belongs to: the run, each task and mixer, the model, the training."""
    default = Config()
    found = {"run": list(fields_of(Config))}
    found["task"] = [Setting("task.name", _toml(default.task["name"]), f"one of {', '.join(TASKS)}")]
    for task, kind in TASKS.items():
        options = kind.OPTIONS.items()
        found[f"task.name={task}"] = [
            Setting(f"task.{name}", _toml(one.default), f"{one.meaning}; {one.expected()}")
            for name, one in options
        ]
    found["mixer"] = [Setting("mixer.name", _toml(default.mixer["name"]), f"one of {', '.join(MIXERS)}")]
    found |= {f"mixer.name={mixer}": list(_arguments(mixer, default.mixer)) for mixer in MIXERS}
    return found | {
        kind.section: list(fields_of(kind, f"{kind.section}.")) for kind in (ModelConfig, TrainingConfig)
    }


def fields_of(kind: type, prefix: str = "") -> Iterator[Setting]:
    """The settings of a section, their names behind `prefix`."""
    for one in dataclasses.fields(kind):
        if told := one.metadata:
            yield Setting(f"{prefix}{one.name}", _toml(one.default), told["meaning"], told["unit"])


def _arguments(mixer: str, default: Mapping[str, Any]) -> Iterator[Setting]:
    kind = MIXERS[mixer]
    meanings = ARGUMENTS | getattr(kind, "ARGUMENTS", {})
    for name, one in inspect.signature(kind).parameters.items():
        if name in NOT_SET:
            continue
        needed = one.default is one.empty
        value = default.get(name) if needed and mixer == default["name"] else one.default
        said = "none, needed" if value is one.empty else "none" if value is None else _toml(value)
        yield Setting(f"mixer.{name}", said, meanings.get(name, f"see {kind.__name__}"))


def to_toml(config: Configuration) -> str:
    """A configuration as TOML, a dotted key a line, which `resolve_config` reads back; the version is a comment."""
    content = config.to_dict()
    lines = [f"# statemix {content.pop('version')}"]
    for name, value in content.items():
        table = (
            {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        )
        lines += [f"{key} = {_toml(one)}" for key, one in table.items()]
    return "\n".join([*lines, ""])


def _toml(value: Any) -> str:
    """A value as TOML, in ASCII: JSON, but for the escapes of what is not ASCII, and inline tables."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(one)}' for key, one in value.items())}}}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in text)
