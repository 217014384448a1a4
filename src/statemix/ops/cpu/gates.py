"""Raw gates to weights and the way back, along whole lines: the seven normalisations.

With f the weight of a gate, S the sum of |f| over its row, u the numbers the row is contracted with and
h = sum f u / S, the gradient of a raw gate is (s / S) (f' u - |f|' h), where s is the adjoint of h.

Weights and S of an edge row, one whose S is close to the ends of the range of numbers, zero or not finite, are
brought near one by a factor, which cancels in their quotient. Lines that hold one go through scalar code.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np

from statemix.ops.cpu.numbers import compiled, exp, in_order, tanh

SOFTMAX, SIGMOID, RELU, TANH, LINEAR, SILU, NONE = range(7)

HARD = 8
"""Added to a code for hard rows."""

SMALL, SMALL_DOUBLE = 2.0**-63, 2.0**-511
"""The root of the smallest normal number: S between it and its inverse is far from both ends."""


@compiled
def small_number(f):
    """`SMALL` in the dtype of an array."""
    return f.dtype.type(SMALL if f.itemsize == 4 else SMALL_DOUBLE)


@compiled
def row_maximum(g, shift, size):
    """The largest gate of every row."""
    for n in range(size):
        shift[n] = g[0, n]
    for j in range(1, g.shape[0]):
        line = g[j]
        for n in range(size):
            shift[n] = line[n] if line[n] > shift[n] else shift[n]


@compiled
def weights(code, f, raw, inverse, shift, scale, least, size, shifted):
    """Turn a row of raw gates f [columns, size] into weights, in place, and put 1 / S into `inverse`.

    Returns whether the line holds edge rows: S below `least`, large or not finite; `scale` is then their factor (0 of
    a row of zeros). `raw` takes the raw gates of silu. `shifted`: `shift` holds the rows' maxima already.
    """
    columns = f.shape[0]
    one, zero = f.dtype.type(1), f.dtype.type(0)
    for n in range(size):
        inverse[n] = f.dtype.type(0.001 * columns) if code == RELU else zero
    if code == SOFTMAX or code == SIGMOID or code == SILU:
        if not shifted:
            row_maximum(f, shift, size)
        if code != SOFTMAX:
            for n in range(size):
                shift[n] = zero if shift[n] > zero else shift[n]
    for j in range(columns):
        line = f[j]
        if code == SOFTMAX:
            for n in range(size):
                line[n] = exp(line[n] - shift[n])
        elif code == SIGMOID or code == SILU:
            gate = raw[j]
            for n in range(size):
                x = line[n]
                gate[n] = x
                w = exp((zero if x > zero else x) - shift[n]) / (one + exp(-abs(x)))
                line[n] = x * w if code == SILU else w
        elif code == RELU:
            for n in range(size):
                line[n] = zero if line[n] <= zero else line[n]
        elif code == TANH:
            for n in range(size):
                line[n] = tanh(line[n])
        for n in range(size):
            inverse[n] += abs(line[n])
    edges = np.int32(0)
    if code != SOFTMAX and code != SIGMOID and code != NONE:
        most = one / small_number(f)
        for n in range(size):
            edges += np.int32(0 if inverse[n] >= least and inverse[n] <= most else 1)
    if edges > 0:
        _edge_weights(code, f, raw, inverse, shift, scale, least, size)
    else:
        for n in range(size):
            inverse[n] = one if code == NONE else one / inverse[n]
    return edges > 0


@compiled
def all_weights(code, f, raw, inverse, shift, scale, size):
    """`weights` for all rows of a tile, going forward."""
    rows = inverse.shape[0]
    columns = f.shape[0] // rows
    for i in range(rows):
        row = f[i * columns : (i + 1) * columns]
        weights(code, row, raw, inverse[i], shift, scale, small_number(f), size, False)


@in_order
def _edge_weights(code, f, raw, inverse, shift, scale, least, size):
    """The end of `weights` for a line with edge rows; `inverse` holds S."""
    columns = f.shape[0]
    one, zero = f.dtype.type(1), f.dtype.type(0)
    small = small_number(f)
    for n in range(size):
        total, s = inverse[n], one
        if not (total >= small and total <= one / small):
            if code == SILU:
                shift[n] = _silu_shift(raw, n)
                for j in range(columns):
                    half = _silu_half(raw, raw[j, n], shift[n])
                    f[j, n] = raw[j, n] * half * half / (one + exp(-abs(raw[j, n])))
            largest = zero
            for j in range(columns):
                largest = max(largest, abs(f[j, n]))
            if largest < small:
                s = one / small
            elif largest > one / small:
                s = small
            total = f.dtype.type(0.001 * columns) * s if code == RELU else zero
            for j in range(columns):
                f[j, n] *= s
                total += abs(f[j, n])
        scale[n] = zero if total == zero else s
        inverse[n] = zero if total == zero else one / total


@in_order
def _silu_shift(raw, n):
    """About the logarithm of the largest weight of an edge row of silu, at most 0 (see `ops/normalization.py`)."""
    zero, bottom = raw.dtype.type(0), raw.dtype.type(-np.inf)
    top = bottom
    for j in range(raw.shape[0]):
        x = raw[j, n]
        size = (raw.dtype.type(math.log(abs(x))) if x != zero else bottom) + (x if x < zero else zero)
        top = size if size > top else top
    return top if bottom < top < zero else zero


@in_order
def _silu_half(raw, x, shift):
    """The root of exp(min(x, 0) - shift), held where it would overflow: that x is zero or almost."""
    highest, zero = raw.dtype.type(80 if raw.itemsize == 4 else 600), raw.dtype.type(0)
    y = raw.dtype.type(0.5) * ((x if x < zero else zero) - shift)
    return exp(highest if y > highest else y)


@compiled
def _derivatives(code, f, g, shift, df, ds, size):
    """f' and |f|' of one line of weights f that came from raw gates g (shift: that of its row)."""
    one, zero = f.dtype.type(1), f.dtype.type(0)
    if code == SIGMOID or code == SILU:
        for n in range(size):
            x = g[n]
            e = exp(-abs(x))
            w = exp((zero if x > zero else x) - shift[n]) / (one + e)
            rest = (e if x >= zero else one) / (one + e)
            df[n] = w * (one + x * rest) if code == SILU else w * rest
    else:
        for n in range(size):
            x = f[n]
            df[n] = one - x * x if code == TANH else one
    for n in range(size):
        x = f[n]
        ds[n] = df[n] if x > zero else (-df[n] if x < zero else zero)


@compiled
def gate_gradient(code, f, g, shift, r, u, h, df, ds, out, size):
    """out = r (f' u - |f|' h) along one line; r = s / S."""
    zero = f.dtype.type(0)
    if code == SOFTMAX:
        for n in range(size):
            out[n] = r[n] * f[n] * (u[n] - h[n])
    elif code == NONE:
        for n in range(size):
            out[n] = r[n] * u[n]
    elif code == RELU:
        for n in range(size):
            out[n] = zero if f[n] <= zero else r[n] * (u[n] - h[n])
    else:
        _derivatives(code, f, g, shift, df, ds, size)
        for n in range(size):
            out[n] = r[n] * (df[n] * u[n] - ds[n] * h[n])


@in_order
def edge_gradient(code, f, g, shift, scale, r, u, h, largest, out, size):
    """`gate_gradient` of a line with edge rows; what exceeds the largest number is that number."""
    one, zero = f.dtype.type(1), f.dtype.type(0)
    for n in range(size):
        x = g[n]
        sign = one if x > zero else (-one if x < zero else zero)
        slope, half = one, one
        if code == TANH and scale[n] == one:
            slope = one - f[n] * f[n]
        elif code == SILU:
            half = _silu_half(g, x, shift[n])
            slope = half * (one + x / (one + exp(x))) / (one + exp(-abs(x)))
        y = r[n] * (u[n] - sign * h[n]) * slope * half * scale[n]
        y = largest if y > largest else (-largest if y < -largest else y)
        out[n] = zero if scale[n] == zero or (code == RELU and x <= zero) else y
