"""Mixers by name, for configurations."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from statemix.nn.bdlru import BDLRU
from statemix.nn.hlru import HLRU

MIXERS: dict[str, type[nn.Module]] = {"bdlru": BDLRU, "hlru": HLRU}
"""Every mixer: a module with forward(x, state, cu_seqlens) -> (y, state), step and initial_state."""


def build_mixer(name: str, dim: int, **arguments: Any) -> nn.Module:
    """Build a mixer of width `dim` by name; `arguments` are its constructor's.

    Errors: ValueError for an unknown name or argument, listing the known ones.
    """
    if name not in MIXERS:
        raise ValueError(f"mixer: got {name!r}, expected one of {', '.join(map(repr, MIXERS))}")
    parameters = inspect.signature(MIXERS[name]).parameters.values()
    known = [p.name for p in parameters if p.name != "dim"]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"mixer.{argument}: unknown for {name!r}, expected one of {', '.join(known)}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in ("dim", *arguments):
            raise ValueError(f"mixer.{parameter.name}: missing, {name!r} needs it")
    return MIXERS[name](dim, **arguments)
