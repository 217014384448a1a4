"""Mixers by name, for configurations."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn

BASELINES = (
    "lstm", "lru", "mamba2", "deltanet", "gated_deltanet", "gated_deltaproduct", "rwkv7", "mlstm", "slstm", "attention",
    "pdssm",
)  # fmt: skip
"""Mixers of the package statemix-research, for a message where it is not installed."""


class Registry(Mapping[str, type[nn.Module]]):
    """Classes by name, each imported at its first use: the built-in ones and those of installed packages.

    A package adds its own by an entry point of the group "statemix.mixers" that names a mapping of name to
    "module:Class"; a program adds one with `register`.
    """

    def __init__(self, places: dict[str, str | type[nn.Module]]) -> None:
        self._places = places
        self._installed = False

    def register(self, name: str, kind: str | type[nn.Module]) -> None:
        """Add a mixer: a class, or its place as "module:Class"."""
        self._places[name] = kind

    def _all(self) -> dict[str, str | type[nn.Module]]:
        if not self._installed:
            for entry in entry_points(group="statemix.mixers"):
                for name, kind in entry.load().items():
                    self._places.setdefault(name, kind)
            self._installed = True
        return self._places

    def __getitem__(self, name: str) -> type[nn.Module]:
        kind = self._places[name] if name in self._places else self._all()[name]
        if isinstance(kind, str):
            module, _, attribute = kind.partition(":")
            kind = getattr(import_module(module), attribute)
        return kind  # type: ignore[return-value]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._all()


MIXERS = Registry({"bdlru": "statemix.nn.bdlru:BDLRU", "hlru": "statemix.nn.hlru:HLRU"})
"""Every mixer by name (see `statemix.nn.mixer` for what one is); `MIXERS.register("mine", Mine)` adds one."""


def check_mixer(name: str) -> str:
    """`name` if it is a key of `MIXERS`; ValueError otherwise, which says what to install for a known baseline."""
    if name in MIXERS:
        return name
    if name in BASELINES:
        raise ValueError(
            f"mixer: {name!r} is a baseline of statemix-research, which is not installed: pip install ./research "
            "(from a clone of statemix)"
        )
    raise ValueError(f"mixer: got {name!r}, expected one of {', '.join(map(repr, MIXERS))}")


def build_mixer(name: str, dim: int, **arguments: Any) -> nn.Module:
    """Build a mixer by name, as configurations do.

    Args:
        name: A key of `MIXERS`.
        dim: Width of its input and output.
        **arguments: Those of its constructor.

    Raises:
        ValueError: The name or an argument is unknown (the message lists the known ones), one is missing, or one is a
            list where a single value belongs.

    Example:
        >>> build_mixer("bdlru", 16, block_size=4)(torch.randn(1, 3, 16))[0].shape
        torch.Size([1, 3, 16])
    """
    kind = MIXERS[check_mixer(name)]
    parameters = inspect.signature(kind).parameters.values()
    known = [p.name for p in parameters if p.name != "dim"]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"mixer.{argument}: unknown for {name!r}, expected one of {', '.join(known)}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in ("dim", *arguments):
            raise ValueError(f"mixer.{parameter.name}: missing, {name!r} needs it")
        given = arguments.get(parameter.name)
        if isinstance(given, list) and _takes_one(parameter):
            raise ValueError(f"mixer.{parameter.name}: got {given}, expected one value for a single mixer")
    return kind(dim, **arguments)


def _takes_one(parameter: inspect.Parameter) -> bool:
    """Whether an argument is one number, word or truth value, as its default is."""
    return isinstance(parameter.default, (bool, int, float, str))


def mixers_in_turn(arguments: Mapping[str, Any], depth: int | None = None) -> list[dict[str, Any]]:
    """What `build_mixer` takes for each of the mixers that the layers of a model have in turn.

    A list for an argument whose default is one number, word or truth value has a value for each layer, and begins anew
    behind its last one. Other arguments are the same in all layers.

    Args:
        arguments: Those of `build_mixer`, less `dim`, as configurations have them.
        depth: Layers; None checks no number of them.

    Raises:
        ValueError: The mixer is unknown, a list is empty or has more than `depth` values.

    Example:
        >>> mixers_in_turn({"name": "bdlru", "block_size": 4, "hard": [True, False]})
        [{'name': 'bdlru', 'block_size': 4, 'hard': True}, {'name': 'bdlru', 'block_size': 4, 'hard': False}]
    """
    known = inspect.signature(MIXERS[check_mixer(arguments["name"])]).parameters
    lists = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, list) and name in known and _takes_one(known[name])
    }
    for name, values in lists.items():
        if not values or (depth is not None and len(values) > depth):
            layers = "" if depth is None else f", {depth} at most"
            raise ValueError(f"mixer.{name}: got {values}, expected a value for each layer{layers}")
    turns = math.lcm(*map(len, lists.values()))
    if depth is not None:
        turns = min(turns, depth)
    return [{**arguments, **{name: one[k % len(one)] for name, one in lists.items()}} for k in range(turns)]


def mixer_functions(arguments: Mapping[str, Any], depth: int) -> list[Callable[[int], nn.Module]]:
    """A function dim -> mixer for each of `depth` layers, as `statemix.models.LanguageModel` takes them.

    arguments, errors: as `mixers_in_turn`.

    >>> first, second = mixer_functions({"name": "bdlru", "block_size": 4, "hard": [True, False]}, 2)
    >>> first(16).hard, second(16).hard
    (True, False)
    """
    turns = mixers_in_turn(arguments, depth)
    return [partial(_build_from, turns[layer % len(turns)]) for layer in range(depth)]


def _build_from(arguments: Mapping[str, Any], dim: int) -> nn.Module:
    return build_mixer(**arguments, dim=dim)
