"""The compiled CPU kernels (Numba): one work item owns LANES neighbouring blocks of one sequence for all of T.

Raw gates are normalised in a scratch row of (m+1) x LANES numbers and forgotten: neither the normalised gates nor
the transition matrices ever exist in memory, in either direction. With f the weight of a gate (normalised p =
f / S, S the sum of |f| over the row), u the numbers the row is contracted with and h = sum p u, the gradient of
a raw gate is (s / S) (f' u - |f|' h), where s is the adjoint of h; see docs/kernels.md.

Arrays arrive flat with their strides in elements, so one compiled version serves every memory layout; a stride of
1 along N takes the vectorised load. N is innermost in everything these kernels write.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

LANES = 16
_FAST = {"contract", "reassoc", "nsz", "arcp", "afn"}  # NaN and infinity keep their meaning
_OPTIONS = {"nogil": True, "fastmath": _FAST, "error_model": "numpy", "cache": True}

SOFTMAX, SIGMOID, RELU, TANH, LINEAR, SILU, NONE = range(7)


def _exp(x):
    return math.exp(x)


def _tanh(x):
    return math.tanh(x)


@overload(_exp)
def _exp_overload(x):
    """float32: 2^k times a polynomial (vectorises, below 2 ulp); float64: the library's."""
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        y = np.float32(-104.0) if x < np.float32(-104.0) else x
        y = np.float32(88.72) if y > np.float32(88.72) else y
        k = math.floor(y * np.float32(1.44269504088896341) + np.float32(0.5))
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


@overload(_tanh)
def _tanh_overload(x):
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
        e = _exp(np.float32(-2.0) * abs(x))
        far = (np.float32(1.0) - e) / (np.float32(1.0) + e)
        far = -far if x < np.float32(0.0) else far
        return near if abs(x) < np.float32(0.625) else far

    return tanh32


@njit(**_OPTIONS)
def _load(source, base, stride, lanes, target):
    """target[:lanes] = source[base + stride * lane]."""
    if stride == 1:
        for n in range(lanes):
            target[n] = source[base + n]
    else:
        for n in range(lanes):
            target[n] = source[base + stride * n]


@njit(**_OPTIONS)
def _row_shift(code, g, shift):
    """What is subtracted from the row before exponentials: its maximum (softmax), or that if negative."""
    shift[:] = g[0]
    for j in range(1, g.shape[0]):
        for n in range(LANES):
            shift[n] = g[j, n] if g[j, n] > shift[n] else shift[n]
    if code != SOFTMAX:
        for n in range(LANES):
            shift[n] = 0 if shift[n] > 0 else shift[n]


@njit(**_OPTIONS)
def _weights(code, g, f, df, ds, divisor, shift):
    """The weights f of a row of gates g [columns, LANES], with f' in df, |f|' in ds, and the divisor S."""
    columns = g.shape[0]
    one = g.dtype.type(1)
    zero = g.dtype.type(0)
    if code == SOFTMAX or code == SIGMOID or code == SILU:
        _row_shift(code, g, shift)
    divisor[:] = one if code == NONE else zero
    if code == RELU:
        divisor[:] = g.dtype.type(0.001 * columns)
    for j in range(columns):
        if code == SOFTMAX:
            for n in range(LANES):
                f[j, n] = _exp(g[j, n] - shift[n])
            for n in range(LANES):
                df[j, n] = f[j, n]
                ds[j, n] = f[j, n]
                divisor[n] += f[j, n]
        elif code == SIGMOID or code == SILU:
            for n in range(LANES):
                x = g[j, n]
                negative = zero if x > zero else x
                e = _exp(-abs(x))
                w = _exp(negative - shift[n]) / (one + e)
                rest = (e if x >= zero else one) / (one + e)
                f[j, n] = w
                df[j, n] = w * rest
                ds[j, n] = w * rest
                if code == SILU:
                    f[j, n] = x * w
                    df[j, n] = w * (one + x * rest)
                    ds[j, n] = df[j, n] if x > zero else (-df[j, n] if x < zero else zero)
                divisor[n] += abs(f[j, n])
        elif code == RELU:
            for n in range(LANES):
                f[j, n] = zero if g[j, n] <= zero else g[j, n]
                df[j, n] = zero if g[j, n] <= zero else one
                ds[j, n] = df[j, n]
                divisor[n] += f[j, n]
        elif code == TANH or code == LINEAR:
            for n in range(LANES):
                w = _tanh(g[j, n]) if code == TANH else g[j, n]
                f[j, n] = w
                df[j, n] = one - w * w if code == TANH else one
                ds[j, n] = df[j, n] if w > zero else (-df[j, n] if w < zero else zero)
                divisor[n] += abs(w)
        else:
            for n in range(LANES):
                f[j, n] = g[j, n]
                df[j, n] = one
                ds[j, n] = zero


@njit(**_OPTIONS)
def _contract(f, u, v, divisor, gated, out):
    """out = (sum_j f_j u_j + f_last v) / S over a row; a row whose divisor is zero gives zero."""
    m = u.shape[0]
    for n in range(LANES):
        out[n] = f[m, n] * v[n] if gated else v[n]
    for j in range(m):
        for n in range(LANES):
            out[n] += f[j, n] * u[j, n]
    for n in range(LANES):
        out[n] = out[n] * 0 if divisor[n] == 0 else out[n] / divisor[n]


@njit(**_OPTIONS)
def _row_gradient(scale, f, df, ds, u, v, h, gated, adjoint, d_gates, base, stride, lanes, d_v):
    """Write dL/dg of one row, add p_j s to the adjoints of u, and put dL/dv into d_v; scale = s / S."""
    m = u.shape[0]
    for j in range(m):
        for n in range(LANES):
            adjoint[j, n] += f[j, n] * scale[n]
        at = base + stride * j
        for n in range(lanes):
            d_gates[at + n] = scale[n] * (df[j, n] * u[j, n] - ds[j, n] * h[n])
    if gated:
        at = base + stride * m
        for n in range(lanes):
            d_gates[at + n] = scale[n] * (df[m, n] * v[n] - ds[m, n] * h[n])
        for n in range(LANES):
            d_v[n] = f[m, n] * scale[n]
    else:
        d_v[:] = scale


@njit(**_OPTIONS)
def block_forward(first, last, code, sizes, bounds, g, gs, v, vs, h0, states, final):
    """BD-LRU and affine recurrences. g [b, t, n, i, j], v [b, t, n, i] with strides gs, vs; h0 and final
    [S, m, N], states [B, T, m, N] contiguous. bounds [S, 3]: batch row, first step, end of each sequence."""
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + LANES - 1) // LANES
    dtype = g.dtype
    row = np.zeros((columns, LANES), dtype)
    f, df, ds = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    divisor, shift, value = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    h, new = np.zeros((m, LANES), dtype), np.zeros((m, LANES), dtype)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, blocks - n0)
        b, start, end = bounds[s]
        h[:] = 0
        for i in range(m):
            _load(h0, (s * m + i) * blocks + n0, 1, lanes, h[i])
        for t in range(start, end):
            for i in range(m):
                at = b * gs[0] + t * gs[1] + n0 * gs[2] + i * gs[3]
                for j in range(columns):
                    _load(g, at + j * gs[4], gs[2], lanes, row[j])
                _load(v, b * vs[0] + t * vs[1] + n0 * vs[2] + i * vs[3], vs[2], lanes, value)
                _weights(code, row, f, df, ds, divisor, shift)
                _contract(f, h, value, divisor, gated, new[i])
                at = ((b * length + t) * m + i) * blocks + n0
                for n in range(lanes):
                    states[at + n] = new[i, n]
            h, new = new, h
        for i in range(m):
            at = (s * m + i) * blocks + n0
            for n in range(lanes):
                final[at + n] = h[i, n]


@njit(**_OPTIONS)
def block_backward(
    first, last, code, sizes, bounds, g, gs, v, vs, h0, states, ss, dstates, dss, dfinal, dg, dv, dh0
):
    """The reverse pass of `block_forward`. states and dstates [b, t, n, i] with strides; dg [B, T, m, columns, N],
    dv [B, T, m, N], dfinal and dh0 [S, m, N] contiguous."""
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + LANES - 1) // LANES
    dtype = g.dtype
    row = np.zeros((columns, LANES), dtype)
    f, df, ds = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    divisor, shift, value = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    out, scale, d_v = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    h, adjoint, carry = np.zeros((m, LANES), dtype), np.zeros((m, LANES), dtype), np.zeros((m, LANES), dtype)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, blocks - n0)
        b, start, end = bounds[s]
        carry[:] = 0
        for i in range(m):
            _load(dfinal, (s * m + i) * blocks + n0, 1, lanes, carry[i])
        for t in range(end - 1, start - 1, -1):
            for i in range(m):
                if t > start:
                    at = b * ss[0] + (t - 1) * ss[1] + n0 * ss[2] + i * ss[3]
                    _load(states, at, ss[2], lanes, h[i])
                else:
                    _load(h0, (s * m + i) * blocks + n0, 1, lanes, h[i])
            adjoint[:] = 0
            for i in range(m):
                at = b * gs[0] + t * gs[1] + n0 * gs[2] + i * gs[3]
                for j in range(columns):
                    _load(g, at + j * gs[4], gs[2], lanes, row[j])
                _load(v, b * vs[0] + t * vs[1] + n0 * vs[2] + i * vs[3], vs[2], lanes, value)
                _load(dstates, b * dss[0] + t * dss[1] + n0 * dss[2] + i * dss[3], dss[2], lanes, scale)
                _weights(code, row, f, df, ds, divisor, shift)
                _contract(f, h, value, divisor, gated, out)
                for n in range(LANES):
                    scale[n] = scale[n] + carry[i, n]
                    scale[n] = scale[n] * 0 if divisor[n] == 0 else scale[n] / divisor[n]
                at = ((b * length + t) * m + i) * columns * blocks + n0
                _row_gradient(
                    scale, f, df, ds, h, value, out, gated, adjoint, dg, at, blocks, lanes, d_v
                )
                at = ((b * length + t) * m + i) * blocks + n0
                for n in range(lanes):
                    dv[at + n] = d_v[n]
            carry, adjoint = adjoint, carry
        for i in range(m):
            at = (s * m + i) * blocks + n0
            for n in range(lanes):
                dh0[at + n] = carry[i, n]


@njit(**_OPTIONS)
def order_forward(first, last, code, sizes, bounds, g, gs, v, vs, h0, states, final):
    """H-LRU. g [b, t, n, j], v [b, t, n] with strides; h0 and final [S, m, N] (newest first), states [B, T, N]
    contiguous."""
    length, channels, m, columns = sizes
    tiles = (channels + LANES - 1) // LANES
    dtype = g.dtype
    row = np.zeros((columns, LANES), dtype)
    f, df, ds = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    divisor, shift, value = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    window, new = np.zeros((m, LANES), dtype), np.zeros(LANES, dtype)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, channels - n0)
        b, start, end = bounds[s]
        window[:] = 0
        for i in range(m):
            _load(h0, (s * m + i) * channels + n0, 1, lanes, window[i])
        for t in range(start, end):
            at = b * gs[0] + t * gs[1] + n0 * gs[2]
            for j in range(columns):
                _load(g, at + j * gs[3], gs[2], lanes, row[j])
            _load(v, b * vs[0] + t * vs[1] + n0 * vs[2], vs[2], lanes, value)
            _weights(code, row, f, df, ds, divisor, shift)
            _contract(f, window, value, divisor, True, new)
            for i in range(m - 1, 0, -1):
                window[i] = window[i - 1]
            window[0] = new
            at = (b * length + t) * channels + n0
            for n in range(lanes):
                states[at + n] = new[n]
        for i in range(m):
            at = (s * m + i) * channels + n0
            for n in range(lanes):
                final[at + n] = window[i, n]


@njit(**_OPTIONS)
def order_backward(
    first, last, code, sizes, bounds, g, gs, v, vs, h0, states, ss, dstates, dss, dfinal, dg, dv, dh0
):
    """The reverse pass of `order_forward`. dg [B, T, columns, N], dv [B, T, N] contiguous. carry[k] is the
    adjoint, gathered so far, of the state k steps before the one in hand."""
    length, channels, m, columns = sizes
    tiles = (channels + LANES - 1) // LANES
    dtype = g.dtype
    row = np.zeros((columns, LANES), dtype)
    f, df, ds = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    divisor, shift, value = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    out, scale, d_v = np.zeros(LANES, dtype), np.zeros(LANES, dtype), np.zeros(LANES, dtype)
    window, carry = np.zeros((m, LANES), dtype), np.zeros((m, LANES), dtype)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, channels - n0)
        b, start, end = bounds[s]
        carry[:] = 0
        for i in range(m):
            _load(dfinal, (s * m + i) * channels + n0, 1, lanes, carry[i])
        for t in range(end - 1, start - 1, -1):
            for k in range(m):
                if t - 1 - k >= start:
                    _load(states, b * ss[0] + (t - 1 - k) * ss[1] + n0 * ss[2], ss[2], lanes, window[k])
                else:
                    _load(h0, (s * m + k - (t - start)) * channels + n0, 1, lanes, window[k])
            at = b * gs[0] + t * gs[1] + n0 * gs[2]
            for j in range(columns):
                _load(g, at + j * gs[3], gs[2], lanes, row[j])
            _load(v, b * vs[0] + t * vs[1] + n0 * vs[2], vs[2], lanes, value)
            _load(dstates, b * dss[0] + t * dss[1] + n0 * dss[2], dss[2], lanes, scale)
            _weights(code, row, f, df, ds, divisor, shift)
            _contract(f, window, value, divisor, True, out)
            for n in range(LANES):
                scale[n] = scale[n] + carry[0, n]
                scale[n] = scale[n] * 0 if divisor[n] == 0 else scale[n] / divisor[n]
            for i in range(m - 1):
                carry[i] = carry[i + 1]
            carry[m - 1] = 0
            at = (b * length + t) * columns * channels + n0
            _row_gradient(
                scale, f, df, ds, window, value, out, True, carry, dg, at, channels, lanes, d_v
            )
            at = (b * length + t) * channels + n0
            for n in range(lanes):
                dv[at + n] = d_v[n]
        for i in range(m):
            at = (s * m + i) * channels + n0
            for n in range(lanes):
                dh0[at + n] = carry[i, n]
