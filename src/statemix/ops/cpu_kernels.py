"""The compiled CPU kernels (Numba): one work item owns up to LANES neighbouring blocks of one sequence for all of T.

It walks T in tiles of a few steps. A tile's raw gates go into scratch lines of at most WIDTH = steps x lanes numbers,
one line for each (row, column); the element-wise work (normalisation, gradients of the gates) runs along whole
lines, the recurrence itself along the lanes of one step. Lines are forgotten after their tile: neither the
normalised gates nor the transition matrices ever exist in memory, in either direction.

With f the weight of a gate, S the sum of |f| over its row, u the numbers the row is contracted with and
h = sum f u / S, the gradient of a raw gate is (s / S) (f' u - |f|' h), where s is the adjoint of h.

Arrays arrive flat with their strides in elements, so one compiled version serves every memory layout; a stride of
1 along N takes the vectorised load. N is innermost in everything these kernels write. Every scratch array is an
allocation of its own: two views of one allocation keep the compiler from vectorising (measured: 3 times slower).
"""

# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

LANES = 64
WIDTH = 256
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


TINY, TINY_DOUBLE = 3e-39, 6e-309


def _load(x):
    return x


@overload(_load)
def _load_overload(x):
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


def _store(x, target):
    return x


@overload(_store)
def _store_overload(x, target):
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


@njit(**_OPTIONS)
def _gather(source, base, step_stride, lane_stride, steps, lanes, line):
    """line[t * lanes + n] = source[base + t * step_stride + n * lane_stride]."""
    for t in range(steps):
        at = base + t * step_stride
        target = line[t * lanes : (t + 1) * lanes]
        if lane_stride == 1:
            part = source[at : at + lanes]
            for n in range(lanes):
                target[n] = _load(part[n])
        else:
            for n in range(lanes):
                target[n] = _load(source[at + n * lane_stride])


@njit(**_OPTIONS)
def _scatter(line, target, base, step_stride, steps, lanes):
    """target[base + t * step_stride + n] = line[t * lanes + n]."""
    for t in range(steps):
        at = base + t * step_stride
        source = line[t * lanes : (t + 1) * lanes]
        part = target[at : at + lanes]
        for n in range(lanes):
            part[n] = _store(source[n], target)


@njit(**_OPTIONS)
def _gather_rows(source, base, step_stride, lane_stride, row_stride, column_stride, steps, lanes, columns, f):
    """Line i * columns + j of f from row i and column j, in the order of memory (N innermost), so that it streams."""
    for t in range(steps):
        for k in range(f.shape[0]):
            at = base + t * step_stride + k // columns * row_stride + k % columns * column_stride
            target = f[k, t * lanes : (t + 1) * lanes]
            if lane_stride == 1:
                part = source[at : at + lanes]
                for n in range(lanes):
                    target[n] = _load(part[n])
            else:
                for n in range(lanes):
                    target[n] = _load(source[at + n * lane_stride])


@njit(**_OPTIONS)
def _scatter_rows(f, target, base, step_stride, line_stride, steps, lanes):
    """target[base + t * step_stride + k * line_stride + n] = f[k, t * lanes + n], in the order of memory."""
    for t in range(steps):
        for k in range(f.shape[0]):
            at = base + t * step_stride + k * line_stride
            source = f[k, t * lanes : (t + 1) * lanes]
            part = target[at : at + lanes]
            for n in range(lanes):
                part[n] = _store(source[n], target)


@njit(**_OPTIONS)
def _row_shift(code, g, shift, size):
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


@njit(**_OPTIONS)
def _weights(code, f, inverse, shift, size):
    """Turn a row of raw gates f [columns, size] into weights, in place, and put 1 / S into `inverse`."""
    columns = f.shape[0]
    one, zero = f.dtype.type(1), f.dtype.type(0)
    for n in range(size):
        inverse[n] = f.dtype.type(0.001 * columns) if code == RELU else zero
    if code == SOFTMAX or code == SIGMOID or code == SILU:
        _row_shift(code, f, shift, size)
    for j in range(columns):
        line = f[j]
        if code == SOFTMAX:
            for n in range(size):
                line[n] = _exp(line[n] - shift[n])
        elif code == SIGMOID or code == SILU:
            for n in range(size):
                x = line[n]
                w = _exp((zero if x > zero else x) - shift[n]) / (one + _exp(-abs(x)))
                line[n] = x * w if code == SILU else w
        elif code == RELU:
            for n in range(size):
                line[n] = zero if line[n] <= zero else line[n]
        elif code == TANH:
            for n in range(size):
                line[n] = _tanh(line[n])
        for n in range(size):
            inverse[n] += abs(line[n])
    least = f.dtype.type(TINY if f.itemsize == 4 else TINY_DOUBLE)
    for n in range(size):
        x = inverse[n]
        inverse[n] = one if code == NONE else (zero if x == zero else one / (least if x < least else x))


@njit(**_OPTIONS)
def _derivatives(code, f, g, shift, df, ds, size):
    """f' and |f|' of one line of weights f that came from raw gates g (shift: that of its row)."""
    one, zero = f.dtype.type(1), f.dtype.type(0)
    if code == SIGMOID or code == SILU:
        for n in range(size):
            x = g[n]
            e = _exp(-abs(x))
            w = _exp((zero if x > zero else x) - shift[n]) / (one + e)
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


@njit(**_OPTIONS)
def _gate_gradient(code, f, g, shift, r, u, h, df, ds, out, size):
    """out = r (f' u - |f|' h) along one line; r = s / S."""
    if code == SOFTMAX:
        for n in range(size):
            out[n] = r[n] * f[n] * (u[n] - h[n])
    else:
        _derivatives(code, f, g, shift, df, ds, size)
        for n in range(size):
            out[n] = r[n] * (df[n] * u[n] - ds[n] * h[n])


@njit(**_OPTIONS)
def _contract(f, first, at, u, value, inverse, gated, lanes, out):
    """out = (sum_j f_j u_j + f_last v) / S for one row at one step; `first` is the row's first line in f."""
    m = u.shape[0]
    v = value[at : at + lanes]
    if gated:
        a0 = f[first + m, at : at + lanes]
        for n in range(lanes):
            out[n] = a0[n] * v[n]
    else:
        for n in range(lanes):
            out[n] = v[n]
    for j in range(m):
        a, past = f[first + j, at : at + lanes], u[j]
        for n in range(lanes):
            out[n] += a[n] * past[n]
    scale = inverse[at : at + lanes]
    for n in range(lanes):
        out[n] *= scale[n]


@njit(**_OPTIONS)
def _contract_line(f, u, value, inverse, gated, size, out):
    """`_contract` for a whole line of steps whose past is known (the reverse pass): f is one row's lines."""
    m = u.shape[0]
    for n in range(size):
        out[n] = f[m, n] * value[n] if gated else value[n]
    for j in range(m):
        a, past = f[j], u[j]
        for n in range(size):
            out[n] += a[n] * past[n]
    for n in range(size):
        out[n] *= inverse[n]


@njit(**_OPTIONS)
def _scale_adjoint(r, inverse, carry, at, lanes):
    """r = (r + carry) / S at one step: the whole adjoint of a state component over its row's divisor."""
    target, scale = r[at : at + lanes], inverse[at : at + lanes]
    for n in range(lanes):
        target[n] = (target[n] + carry[n]) * scale[n]


@njit(**_OPTIONS)
def _lagged(states, base, ss, h0, initial, blocks, start, t0, lag, steps, lanes, line):
    """The states `lag` steps before t0, t0 + 1, ...; before `start` they come from the carried state, whose
    entry k lies at initial + k * blocks and is the state k + 1 steps before `start`."""
    carried = min(max(start - (t0 - lag), 0), steps)
    for t in range(carried):
        at = initial + (start - 1 - (t0 + t - lag)) * blocks
        for n in range(lanes):
            line[t * lanes + n] = h0[at + n]
    at = base + (t0 + carried - lag) * ss[1]
    _gather(states, at, ss[1], ss[2], steps - carried, lanes, line[carried * lanes :])


@njit(**_OPTIONS)
def _spread_adjoint(f, first, at, r, adjoint, lanes):
    """adjoint_j += f_j r for one row at one step: what the row asks of the numbers it was contracted with."""
    for j in range(adjoint.shape[0]):
        a, target = f[first + j, at : at + lanes], adjoint[j]
        for n in range(lanes):
            target[n] += a[n] * r[n]


@njit(**_OPTIONS)
def _read_state(source, s, m, blocks, n0, lanes, target):
    """Lanes n0 ... of a state [S, m, N] into target [m, lanes]."""
    for i in range(m):
        at = (s * m + i) * blocks + n0
        for n in range(lanes):
            target[i, n] = source[at + n]


@njit(**_OPTIONS)
def _write_state(source, s, m, blocks, n0, lanes, target):
    """The reverse of `_read_state`."""
    for i in range(m):
        at = (s * m + i) * blocks + n0
        for n in range(lanes):
            target[at + n] = source[i, n]


@njit(**_OPTIONS)
def block_forward(first, last, code, sizes, bounds, g, gs, v, vs, h0, states, final):
    """BD-LRU and affine recurrences. g [b, t, n, i, j], v [b, t, n, i] with strides gs, vs; h0 and final
    [S, m, N], states [B, T, m, N] contiguous. bounds [S, 3]: batch row, first step, end of each sequence."""
    real = h0.dtype
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + LANES - 1) // LANES
    f = np.zeros((m * columns, WIDTH), real)
    value, inverse = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    out = np.zeros((m, WIDTH), real)
    shift = np.zeros(WIDTH, real)
    h, new = np.zeros((m, LANES), real), np.zeros((m, LANES), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, blocks - n0)
        b, start, end = bounds[s]
        _read_state(h0, s, m, blocks, n0, lanes, h)
        for t0 in range(start, end, WIDTH // lanes):
            steps = min(WIDTH // lanes, end - t0)
            size = steps * lanes
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            _gather_rows(g, at, gs[1], gs[2], gs[3], gs[4], steps, lanes, columns, f)
            for i in range(m):
                at = b * vs[0] + t0 * vs[1] + n0 * vs[2] + i * vs[3]
                _gather(v, at, vs[1], vs[2], steps, lanes, value[i])
                _weights(code, f[i * columns : (i + 1) * columns], inverse[i], shift, size)
            for t in range(steps):
                at = t * lanes
                for i in range(m):
                    _contract(f, i * columns, at, h, value[i], inverse[i], gated, lanes, new[i])
                    for n in range(lanes):
                        out[i, at + n] = new[i, n]
                h, new = new, h
            for i in range(m):
                at = ((b * length + t0) * m + i) * blocks + n0
                _scatter(out[i], states, at, m * blocks, steps, lanes)
        _write_state(h, s, m, blocks, n0, lanes, final)


@njit(**_OPTIONS)
def block_backward(
    first, last, code, sizes, bounds, g, gs, v, vs, h0, states, ss, dstates, dss, dfinal, dg, dv, dh0
):
    """The reverse pass of `block_forward`. states and dstates [b, t, n, i] with strides; dg [B, T, m, columns, N],
    dv [B, T, m, N], dfinal and dh0 [S, m, N] contiguous."""
    real = h0.dtype
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + LANES - 1) // LANES
    f, raw = np.zeros((m * columns, WIDTH), real), np.zeros((m * columns, WIDTH), real)
    value, inverse = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    past, h, r = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    shift, line = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    df, ds = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    adjoint, carry = np.zeros((m, LANES), real), np.zeros((m, LANES), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, blocks - n0)
        tile = WIDTH // lanes
        b, start, end = bounds[s]
        _read_state(dfinal, s, m, blocks, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            for i in range(m):
                _lagged(
                    states, b * ss[0] + n0 * ss[2] + i * ss[3], ss, h0, (s * m + i) * blocks + n0, 0,
                    start, t0, 1, steps, lanes, past[i],
                )  # fmt: skip
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            _gather_rows(g, at, gs[1], gs[2], gs[3], gs[4], steps, lanes, columns, f)
            if code != SOFTMAX:
                raw[:] = f
            for i in range(m):
                row = f[i * columns : (i + 1) * columns]
                _gather(
                    v, b * vs[0] + t0 * vs[1] + n0 * vs[2] + i * vs[3], vs[1], vs[2], steps, lanes, value[i]
                )
                at = b * dss[0] + t0 * dss[1] + n0 * dss[2] + i * dss[3]
                _gather(dstates, at, dss[1], dss[2], steps, lanes, r[i])
                _weights(code, row, inverse[i], shift, size)
                _contract_line(row, past, value[i], inverse[i], gated, size, h[i])
            for t in range(steps - 1, -1, -1):
                at = t * lanes
                adjoint[:] = 0
                for i in range(m):
                    _scale_adjoint(r[i], inverse[i], carry[i], at, lanes)
                    _spread_adjoint(f, i * columns, at, r[i, at : at + lanes], adjoint, lanes)
                carry, adjoint = adjoint, carry
            for i in range(m):
                if code == SIGMOID or code == SILU:
                    _row_shift(code, raw[i * columns : (i + 1) * columns], shift, size)
                for j in range(columns):
                    k = i * columns + j
                    u = past[j] if j < m else value[i]
                    _gate_gradient(code, f[k], raw[k], shift, r[i], u, h[i], df, ds, raw[k], size)
                if gated:
                    for n in range(size):
                        r[i, n] *= f[i * columns + m, n]
            at = ((b * length + t0) * m * columns) * blocks + n0
            _scatter_rows(raw, dg, at, m * columns * blocks, blocks, steps, lanes)
            _scatter_rows(r, dv, ((b * length + t0) * m) * blocks + n0, m * blocks, blocks, steps, lanes)
        _write_state(carry, s, m, blocks, n0, lanes, dh0)


@njit(**_OPTIONS)
def order_forward(first, last, code, sizes, bounds, g, gs, v, vs, h0, states, final):
    """H-LRU. g [b, t, n, j], v [b, t, n] with strides; h0 and final [S, m, N] (newest first), states [B, T, N]
    contiguous."""
    real = h0.dtype
    length, channels, m, columns = sizes
    tiles = (channels + LANES - 1) // LANES
    f = np.zeros((columns, WIDTH), real)
    value, inverse = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    out, shift = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    window, new = np.zeros((m, LANES), real), np.zeros(LANES, real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, channels - n0)
        b, start, end = bounds[s]
        _read_state(h0, s, m, channels, n0, lanes, window)
        for t0 in range(start, end, WIDTH // lanes):
            steps = min(WIDTH // lanes, end - t0)
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            for j in range(columns):
                _gather(g, at + j * gs[3], gs[1], gs[2], steps, lanes, f[j])
            _gather(v, b * vs[0] + t0 * vs[1] + n0 * vs[2], vs[1], vs[2], steps, lanes, value)
            _weights(code, f, inverse, shift, steps * lanes)
            for t in range(steps):
                at = t * lanes
                _contract(f, 0, at, window, value, inverse, True, lanes, new)
                for i in range(m - 1, 0, -1):
                    for n in range(lanes):
                        window[i, n] = window[i - 1, n]
                for n in range(lanes):
                    window[0, n] = new[n]
                    out[at + n] = new[n]
            _scatter(out, states, (b * length + t0) * channels + n0, channels, steps, lanes)
        _write_state(window, s, m, channels, n0, lanes, final)


@njit(**_OPTIONS)
def order_backward(
    first, last, code, sizes, bounds, g, gs, v, vs, h0, states, ss, dstates, dss, dfinal, dg, dv, dh0
):
    """The reverse pass of `order_forward`. dg [B, T, columns, N], dv [B, T, N] contiguous. carry[k] is the
    adjoint, gathered so far, of the state k steps before the one in hand."""
    real = h0.dtype
    length, channels, m, columns = sizes
    tiles = (channels + LANES - 1) // LANES
    f, raw = np.zeros((columns, WIDTH), real), np.zeros((columns, WIDTH), real)
    past = np.zeros((m, WIDTH), real)
    value, inverse = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    h, r = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    shift, line = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    df, ds = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    carry = np.zeros((m + 1, LANES), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * LANES
        lanes = min(LANES, channels - n0)
        tile = WIDTH // lanes
        b, start, end = bounds[s]
        _read_state(dfinal, s, m, channels, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            for k in range(m):
                _lagged(
                    states, b * ss[0] + n0 * ss[2], ss, h0, s * m * channels + n0, channels,
                    start, t0, k + 1, steps, lanes, past[k],
                )  # fmt: skip
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            for j in range(columns):
                _gather(g, at + j * gs[3], gs[1], gs[2], steps, lanes, f[j])
                if code != SOFTMAX:
                    raw[j] = f[j]
            _gather(v, b * vs[0] + t0 * vs[1] + n0 * vs[2], vs[1], vs[2], steps, lanes, value)
            _gather(dstates, b * dss[0] + t0 * dss[1] + n0 * dss[2], dss[1], dss[2], steps, lanes, r)
            _weights(code, f, inverse, shift, size)
            _contract_line(f, past, value, inverse, True, size, h)
            for t in range(steps - 1, -1, -1):
                at = t * lanes
                _scale_adjoint(r, inverse, carry[0], at, lanes)
                for i in range(m):
                    for n in range(lanes):
                        carry[i, n] = carry[i + 1, n]
                _spread_adjoint(f, 0, at, r[at : at + lanes], carry[:m], lanes)
            at = (b * length + t0) * columns * channels + n0
            if code == SIGMOID or code == SILU:
                _row_shift(code, raw, shift, size)
            for j in range(columns):
                u = past[j] if j < m else value
                _gate_gradient(code, f[j], raw[j], shift, r, u, h, df, ds, line, size)
                _scatter(line, dg, at + j * channels, columns * channels, steps, lanes)
            for n in range(size):
                r[n] *= f[m, n]
            _scatter(r, dv, (b * length + t0) * channels + n0, channels, steps, lanes)
        _write_state(carry, s, m, channels, n0, lanes, dh0)
