"""Raw gates to weights and the way back, along whole lines: the seven normalisations.

With f the weight of a gate, S the sum of |f| over its row, u the numbers the row is contracted with and
h = sum f u / S, the gradient of a raw gate is (s / S) (f' u - |f|' h), where s is the adjoint of h.
"""

# mypy: ignore-errors
from __future__ import annotations

from statemix.ops.cpu_kernels.numbers import compiled, exp, tanh

SOFTMAX, SIGMOID, RELU, TANH, LINEAR, SILU, NONE = range(7)
TINY, TINY_DOUBLE = 3e-39, 6e-309


@compiled
def row_shift(code, g, shift, size):
    """What is subtracted from a row before exponentials: its maximum (softmax), or that if negative."""
    for n in range(size):
        shift[n] = g[0, n]
    for j in range(1, g.shape[0]):
        line = g[j]
        for n in range(size):
            shift[n] = line[n] if line[n] > shift[n] else shift[n]
    if code != SOFTMAX:
        for n in range(size):
            shift[n] = 0 if shift[n] > 0 else shift[n]


@compiled
def weights(code, f, inverse, shift, size):
    """Turn a row of raw gates f [columns, size] into weights, in place, and put 1 / S into `inverse`."""
    columns = f.shape[0]
    one, zero = f.dtype.type(1), f.dtype.type(0)
    for n in range(size):
        inverse[n] = f.dtype.type(0.001 * columns) if code == RELU else zero
    if code == SOFTMAX or code == SIGMOID or code == SILU:
        row_shift(code, f, shift, size)
    for j in range(columns):
        line = f[j]
        if code == SOFTMAX:
            for n in range(size):
                line[n] = exp(line[n] - shift[n])
        elif code == SIGMOID or code == SILU:
            for n in range(size):
                x = line[n]
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
    least = f.dtype.type(TINY if f.itemsize == 4 else TINY_DOUBLE)
    for n in range(size):
        x = inverse[n]
        inverse[n] = one if code == NONE else (zero if x == zero else one / (least if x < least else x))


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
            if code == RELU:
                df[n] = zero if x <= zero else one
            else:
                df[n] = one - x * x if code == TANH else one
    for n in range(size):
        x = f[n]
        signed = df[n] if x > zero else (-df[n] if x < zero else zero)
        ds[n] = zero if code == NONE else signed


@compiled
def gate_gradient(code, f, g, shift, r, u, h, df, ds, out, size):
    """out = r (f' u - |f|' h) along one line; r = s / S."""
    if code == SOFTMAX:
        for n in range(size):
            out[n] = r[n] * f[n] * (u[n] - h[n])
    else:
        _derivatives(code, f, g, shift, df, ds, size)
        for n in range(size):
            out[n] = r[n] * (df[n] * u[n] - ds[n] * h[n])
