"""One token: the forward kernels on addresses, because looking at a tensor as an array takes longer than its step."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from statemix.ops.cpu_kernels.block import block_forward
from statemix.ops.cpu_kernels.numbers import compiled
from statemix.ops.cpu_kernels.order import order_forward

EVERYTHING = 1 << 48
"""More numbers than any tensor has: the kernels stay inside by sizes and strides."""


@intrinsic
def pointer(context, address, example):
    """An address as a pointer to numbers like those of an array."""
    kind = types.CPointer(example.dtype)

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(kind))

    return kind(address, example), generate


@compiled
def block_token(first, last, code, sizes, bounds, stored, real, g, gs, v, vs, h0, final):
    """`block_forward` of T = 1. g, v, h0 and final are addresses; stored and real: arrays like gates and values, and
    like the state. The states are final's."""
    states = np.empty(bounds.shape[0] * sizes[1] * sizes[2], stored.dtype)
    block_forward(
        first, last, code, sizes, bounds,
        carray(pointer(g, stored), EVERYTHING), gs, carray(pointer(v, stored), EVERYTHING), vs,
        carray(pointer(h0, real), EVERYTHING), states, carray(pointer(final, real), EVERYTHING),
    )  # fmt: skip


@compiled
def order_token(first, last, code, sizes, bounds, stored, real, g, gs, v, vs, h0, final):
    """`order_forward` of T = 1, as `block_token`."""
    states = np.empty(bounds.shape[0] * sizes[1], stored.dtype)
    order_forward(
        first, last, code, sizes, bounds,
        carray(pointer(g, stored), EVERYTHING), gs, carray(pointer(v, stored), EVERYTHING), vs,
        carray(pointer(h0, real), EVERYTHING), states, carray(pointer(final, real), EVERYTHING),
    )  # fmt: skip
