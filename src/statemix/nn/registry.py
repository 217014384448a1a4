"""Mixers by name, for configurations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
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
        ValueError: The name or an argument is unknown (the message lists the known ones), or one is missing.

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
    return kind(dim, **arguments)
