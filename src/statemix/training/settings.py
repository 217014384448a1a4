"""Every setting of a run with its default and meaning, and a configuration as TOML."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from statemix.nn.registry import MIXERS
from statemix.tasks import TASKS, get_task
from statemix.training.config import Config, ModelConfig, TrainingConfig


class Setting(NamedTuple):
    """What may be set: its dotted name, its default as TOML (or in words), what it means, and its unit."""

    name: str
    default: str
    meaning: str
    unit: str = ""

    def __str__(self) -> str:
        unit = f"{self.unit}; " if self.unit else ""
        return f"{self.meaning} ({unit}default {self.default})"


class Group(NamedTuple):
    """Settings that belong together."""

    title: str
    settings: list[Setting]


ARGUMENTS: dict[str, str] = {
    "block_size": "m, the size of a block; its transitions are m × m",
    "order": "m, the past states that a channel looks back over",
    "num_blocks": "N, blocks; so that N m is about the width",
    "num_channels": "N, channels; so that N m is about the width",
    "normalization": "of each row of gates: softmax, sigmoid, relu, tanh, linear, silu or none",
    "selective": "whether the input chooses the gates; false: they are parameters, the same at every step",
    "gate_bias": "what every input gate starts with; negative values make new blocks remember longer",
    "transition_bias": 'what all other gates start with; positive values make "relu" remember from the start',
    "readout": '"window" projects the last m states, "newest" the last one',
    "backend": 'what computes it: "auto" takes the fastest that can run',
    "hidden_size": "numbers of h and of c; the width if left out",
    "state_dim": "numbers of a state's column, complex where the layer is; the width if it has no default",
    "radius": "where the moduli of the eigenvalues start, uniform in area",
    "max_phase": "the largest phase of an eigenvalue at the start, in radians",
    "expand": "inner width as a multiple of the width",
    "expand_v": "width of the values as a multiple of that of the keys",
    "head_dim": "channels of a head; the width divided by the heads if it has no default",
    "heads": "heads",
    "conv_size": "taps of the short convolution",
    "negative_eigenvalues": "whether eigenvalues lie in [-1, 1] instead of [0, 1]",
    "factors": "Householder factors of a token",
    "rank": "of the low-rank maps of decay and rate; 2.5 √width, rounded, if left out",
    "chunk": "steps computed side by side",
    "position": 'how positions are told: "rotary" or "none"',
    "dictionary_size": "matrices that the permutations are mixed from",
    "gate_dim": "width inside the maps of modulus and phase; the width if left out",
    "magnitude_bias": "the logit that the modulus starts with",
}
"""What the arguments of the mixers mean."""

SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

NOT_SET = ("dim", "device", "dtype")
"""Arguments of every mixer that follow from other settings."""


def groups() -> Iterator[Group]:
    """Every setting: the run's own, those of each task and of each mixer, the model's, the training's."""
    top = [one for one in _fields(Config, "") if one.name == "name"]
    yield Group("run", top)
    yield Group("task", [Setting("task.name", _toml(Config().task["name"]), f"one of {', '.join(TASKS)}")])
    for task in TASKS:
        yield Group(f"task.name={task}", list(_options(task)))
    yield Group(
        "mixer", [Setting("mixer.name", _toml(Config().mixer["name"]), f"one of {', '.join(MIXERS)}")]
    )
    for mixer in MIXERS:
        yield Group(f"mixer.name={mixer}", list(_arguments(mixer)))
    yield Group("model", list(_fields(ModelConfig, "model.")))
    yield Group("training", list(_fields(TrainingConfig, "training.")))


def _fields(kind: type, prefix: str) -> Iterator[Setting]:
    for field in dataclasses.fields(kind):
        if "meaning" in field.metadata:
            yield Setting(f"{prefix}{field.name}", _toml(field.default), **field.metadata)


def _options(task: str) -> Iterator[Setting]:
    for name, option in get_task(task).OPTIONS.items():
        yield Setting(f"task.{name}", _toml(option.default), f"{option.meaning}; {option.expected()}")


def _arguments(mixer: str) -> Iterator[Setting]:
    for parameter in inspect.signature(MIXERS[mixer]).parameters.values():
        if parameter.name in NOT_SET:
            continue
        if parameter.default is parameter.empty:
            default = (
                f"{Config().mixer[parameter.name]}" if mixer == Config().mixer["name"] else "none, needed"
            )
        else:
            default = "none" if parameter.default is None else _toml(parameter.default)
        yield Setting(f"mixer.{parameter.name}", default, ARGUMENTS[parameter.name])


def to_toml(config: Config) -> str:
    """A configuration as TOML, which `resolve_config` reads back to the same one; the version is a comment."""
    content = config.to_dict()
    lines = [f"# statemix {content.pop('version')}"]
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines += [f"{key} = {_toml(value)}" for key, value in content.items() if key not in tables]
    for key, table in tables.items():
        lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML, in ASCII: it can be written to every stream."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_quoted(key)} = {_toml(one)}' for key, one in value.items())}}}"
    return repr(value)


def _quoted(text: str) -> str:
    plain = (c if c.isascii() and c.isprintable() and c not in '"\\' else _escaped(c) for c in text)
    return f'"{"".join(plain)}"'


def _escaped(character: str) -> str:
    """As TOML's basic strings have it."""
    code = ord(character)
    return SHORT.get(character) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
