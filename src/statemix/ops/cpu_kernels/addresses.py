"""Tensors as the kernels get them: addresses.

Looking at a tensor as a NumPy array takes longer than a token's arithmetic, and its storage can then no longer be
resized, which sharded training does to free it.
"""

# mypy: ignore-errors
from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from statemix.ops.cpu_kernels.numbers import compiled

EVERYTHING = 1 << 48
"""More numbers than any tensor has: the kernels stay inside by sizes and strides."""


@intrinsic
def _pointer(context, address, example):
    """An address as a pointer to numbers like those of an array."""
    kind = types.CPointer(example.dtype)

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(kind))

    return kind(address, example), generate


@compiled
def array_at(address, example):
    """The numbers from an address on, as an array like the example."""
    return carray(_pointer(address, example), EVERYTHING)
