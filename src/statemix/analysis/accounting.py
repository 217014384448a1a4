"""Parameters, state, arithmetic and state traffic of a mixer or of a whole model.

The formulas are in `statemix.analysis.formulas`; everything here sums over the mixers found in a module. Nothing is
built or run: a module on the "meta" device will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from statemix.analysis.formulas import FORMULAS, Formulas

Entry = TypeVar("Entry")


def entry_of(table: Mapping[type[nn.Module], Entry], part: nn.Module) -> Entry | None:
    """What a table keyed by class holds for a module: for its class or the nearest ancestor, else None."""
    return next((table[kind] for kind in type(part).__mro__ if kind in table), None)


def formulas_of(mixer: nn.Module) -> Formulas:
    """The formulas of a mixer. Errors: TypeError for a module that is none."""
    found = entry_of(FORMULAS, mixer)
    if found is None:
        known = ", ".join(kind.__name__ for kind in FORMULAS)
        raise TypeError(f"mixer: got {type(mixer).__name__}, expected one of {known}")
    return found


def mixers(module: nn.Module) -> list[nn.Module]:
    """The mixers in a module, itself included, in order. A subclass of a mixer is one."""
    return [part for part in module.modules() if entry_of(FORMULAS, part)]


def parameters(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def mixer_parameters(module: nn.Module) -> int:
    """The parameters of the mixers alone."""
    return sum(parameters(mixer) for mixer in mixers(module))


def state_size(module: nn.Module, context: int = 1) -> int:
    """Numbers carried from token to token per sequence, convolution windows included: the sum over the mixers.

    `context`: the tokens seen so far, which attention's state grows with.
    """
    return sum(formulas_of(mixer).state_size(mixer, context) for mixer in mixers(module))


def flops_per_step(module: nn.Module, context: int = 1) -> int:
    """Multiplications, additions and divisions of the recurrences alone, per token: BD-LRU N(2m² + m), H-LRU N(2m + 1).

    A matrix state's reading by its query counts; projections, convolutions and the making of gates do not.
    `context`: the tokens attention looks at. Source: arXiv 2602.12021, figure 1C.
    """
    return sum(formulas_of(mixer).flops_per_step(mixer, context) for mixer in mixers(module))


def bytes_per_token(module: nn.Module, dtype: torch.dtype = torch.float32, context: int = 1) -> int:
    """Bytes of state read and written to decode one token of one sequence, the state being kept in `dtype`.

    `context`: the tokens seen, this one included; attention reads the keys and values of all and writes one's.
    """
    numbers = sum(formulas_of(mixer).traffic(mixer, context) for mixer in mixers(module))
    return numbers * dtype.itemsize
