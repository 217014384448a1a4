"""Mixers by name, for configurations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn


class Registry(Mapping[str, type[nn.Module]]):
    """Classes by name, each imported when it is asked for: the built-in ones and those of installed packages.

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
                self._places = {**entry.load(), **self._places}
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
"""Every mixer: a module with forward(x, state, cu_seqlens) -> (y, state), step and initial_state."""


def build_mixer(name: str, dim: int, **arguments: Any) -> nn.Module:
    """Build a mixer of width `dim` by name; `arguments` are its constructor's.

    Errors: ValueError for an unknown name or argument, listing the known ones.
    """
    if name not in MIXERS:
        raise ValueError(f"mixer: got {name!r}, expected one of {', '.join(map(repr, MIXERS))}")
    kind = MIXERS[name]
    parameters = inspect.signature(kind).parameters.values()
    known = [p.name for p in parameters if p.name != "dim"]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"mixer.{argument}: unknown for {name!r}, expected one of {', '.join(known)}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in ("dim", *arguments):
            raise ValueError(f"mixer.{parameter.name}: missing, {name!r} needs it")
    return kind(dim, **arguments)
