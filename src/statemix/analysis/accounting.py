"""Parameters, state and arithmetic of a mixer or of a whole model.

A formula per class of mixer, in one table; everything else sums over the mixers found in a module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from torch import nn

from statemix.nn import BDLRU, HLRU

Entry = TypeVar("Entry")


class Formulas(NamedTuple):
    """Numbers carried per sequence, and floating-point operations of the recurrence per token."""

    state_size: Callable[[Any], int]
    flops_per_step: Callable[[Any], int]


def _bdlru_flops(layer: BDLRU) -> int:
    """Per block: m² products, m (m - 1) sums, m input products and m sums: 2m² + m."""
    m = layer.block_size
    return layer.num_blocks * (2 * m * m + m)


def _hlru_flops(layer: HLRU) -> int:
    """Per channel: m products, m - 1 sums, one input product and one sum: 2m + 1."""
    return layer.num_channels * (2 * layer.order + 1)


FORMULAS: dict[type[nn.Module], Formulas] = {
    BDLRU: Formulas(lambda layer: layer.num_blocks * layer.block_size, _bdlru_flops),
    HLRU: Formulas(lambda layer: layer.num_channels * layer.order, _hlru_flops),
}
"""What each class of mixer costs."""


def entry_of(table: Mapping[type[nn.Module], Entry], part: nn.Module) -> Entry | None:
    """What a table keyed by class holds for a module: for its class or the nearest ancestor, else None."""
    return next((table[kind] for kind in type(part).__mro__ if kind in table), None)


def _formulas(mixer: nn.Module) -> Formulas:
    found = entry_of(FORMULAS, mixer)
    assert found is not None
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


def state_size(module: nn.Module) -> int:
    """Numbers carried from token to token per sequence: the sum of N·m over the mixers."""
    return sum(_formulas(mixer).state_size(mixer) for mixer in mixers(module))


def flops_per_step(module: nn.Module) -> int:
    """Multiplications and additions of the recurrences alone, per token: BD-LRU N(2m² + m), H-LRU N(2m + 1).

    Projections and the normalisation of the gates are not counted. Source: arXiv 2602.12021, figure 1C.
    """
    return sum(_formulas(mixer).flops_per_step(mixer) for mixer in mixers(module))
