"""Mixers by name, for configurations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import nn


class Classes(Mapping[str, type[nn.Module]]):
    """Classes by name, each imported when it is asked for: name -> (module under statemix.nn, class)."""

    def __init__(self, places: dict[str, tuple[str, str]]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> type[nn.Module]:
        module, kind = self._places[name]
        return getattr(import_module(f"statemix.nn.{module}"), kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


MIXERS: Mapping[str, type[nn.Module]] = Classes(
    {
        "bdlru": ("bdlru", "BDLRU"),
        "hlru": ("hlru", "HLRU"),
        "lstm": ("rivals.lstm", "LSTM"),
        "lru": ("rivals.lru", "LRU"),
        "mamba2": ("rivals.mamba2", "Mamba2"),
        "deltanet": ("rivals.deltanet", "DeltaNet"),
        "gated_deltanet": ("rivals.deltanet", "GatedDeltaNet"),
        "gated_deltaproduct": ("rivals.deltanet", "GatedDeltaProduct"),
        "rwkv7": ("rivals.rwkv7", "RWKV7"),
        "mlstm": ("rivals.mlstm", "MLSTM"),
        "slstm": ("rivals.slstm", "SLSTM"),
        "attention": ("rivals.attention", "Attention"),
        "pdssm": ("rivals.pdssm", "PDSSM"),
    }
)
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
