"""Exponentials that vectorise, half precision as bit patterns, and how every kernel is compiled."""

# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
from numba import config, njit, types
from numba.extending import overload

from statemix.ops.cpu.cache import KernelCache

_FAST = {"contract", "reassoc", "nsz", "arcp", "afn"}  # NaN and infinity keep their meaning
_HELPER = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled = njit(fastmath=_FAST, **_HELPER)
"""For a helper: it becomes part of the kernels that call it, and Python cannot."""

in_order = njit(fastmath=False, **_HELPER)
"""For a helper near the ends of the range of numbers: products are taken in the order written. Left unsaid, `fastmath`
would be the calling kernel's."""


def kernel(function):
    """For what Python calls: compiled at the first call with new types, and cached on disk."""
    dispatcher = njit(function, nogil=True, fastmath=_FAST, error_model="numpy")
    if not config.DISABLE_JIT:
        dispatcher._cache = KernelCache(function)
    return dispatcher


def exp(x):
    """e^x."""
    return math.exp(x)


def tanh(x):
    """The hyperbolic tangent."""
    return math.tanh(x)


@overload(exp)
def _exp(x):
    """float32: 2^k times a polynomial (vectorises, below 2 ulp); float64: the library's."""
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        y = np.float32(-104.0) if x < np.float32(-104.0) else x
        y = np.float32(88.72) if y > np.float32(88.72) else y
        k = np.floor(y * np.float32(1.44269504088896341) + np.float32(0.5))
        r = y - k * np.float32(0.693359375)
        r = r - k * np.float32(-2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        p = p * r * r + r + np.float32(1.0)
        half = np.int32(k) >> np.int32(1)  # two factors, so that results below 2^-126 do not wrap
        rest = np.int32(k) - half
        low = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
        high = np.int32((rest + np.int32(127)) << np.int32(23)).view(np.float32)
        y = p * low * high
        return np.float32(0.0) if x < np.float32(-103.9) else y

    return exp32


@overload(tanh)
def _tanh(x):
    """float32: a polynomial near zero (small gates keep their relative accuracy), exponentials elsewhere."""
    if x != types.float32:
        return lambda x: math.tanh(x)

    def tanh32(x):
        z = x * x
        p = np.float32(-5.70498872745e-3)
        p = p * z + np.float32(2.06390887954e-2)
        p = p * z + np.float32(-5.37397155531e-2)
        p = p * z + np.float32(1.33314422036e-1)
        p = p * z + np.float32(-3.33332819422e-1)
        near = p * z * x + x
        e = exp(np.float32(-2.0) * abs(x))
        far = (np.float32(1.0) - e) / (np.float32(1.0) + e)
        far = -far if x < np.float32(0.0) else far
        return near if abs(x) < np.float32(0.625) else far

    return tanh32


def load(x):
    """A stored number as float32 or float64."""
    return x


@overload(load)
def _load(x):
    """A stored number as float32 or float64; bfloat16 arrives as uint16 bits, float16 as int16 bits."""
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    if x != types.int16:
        return lambda x: x

    def half(x):
        bits = np.uint32(np.uint32(x & 0x7FFF) << np.uint32(13))
        finite = bits.view(np.float32) * np.float32(2.0**112)
        special = np.uint32(bits | np.uint32(0x7F800000)).view(np.float32)
        y = special if bits >= np.uint32(0x0F800000) else finite
        return -y if x < 0 else y

    return half


def store(x, target):
    """A number as the target holds it."""
    return x


@overload(store)
def _store(x, target):
    """A number as the bits of the target's elements, rounded to nearest, ties to even."""
    if target.dtype == types.uint16:

        def bfloat(x, target):
            bits = np.float32(x).view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            rounded = np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            return (
                np.uint16(0x7FC0)
                if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
                else np.uint16(rounded)
            )

        return bfloat
    if target.dtype != types.int16:
        return lambda x, target: x

    def half(x, target):
        bits = np.float32(x).view(np.uint32)
        size = bits & np.uint32(0x7FFFFFFF)
        small = np.uint32(np.rint(np.uint32(size).view(np.float32) * np.float32(2.0**24)))
        odd = (size >> np.uint32(13)) & np.uint32(1)
        y = (np.uint32(size + np.uint32(0xFFF) + odd) >> np.uint32(13)) - np.uint32(112 << 10)
        y = small if size < np.uint32(0x38800000) else y  # below 2^-14: fixed point
        y = np.uint32(0x7C00) if size >= np.uint32(0x477FF000) else y  # 65520 and above: infinity
        y = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else y
        return np.int16(y | ((bits >> np.uint32(16)) & np.uint32(0x8000)))

    return half
