"""H-LRU, forward and backward."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from statemix.ops.cpu.contraction import contract, contract_line, scale_adjoint, spread_adjoint
from statemix.ops.cpu.gates import SOFTMAX, edge_gradient, gate_gradient, small_number, weights
from statemix.ops.cpu.memory import (
    BLOCKS_PER_ITEM,
    WIDTH,
    array_at,
    copy,
    gather,
    gather_rows,
    lagged,
    read_state,
    scatter,
    write_state,
)
from statemix.ops.cpu.numbers import gradient_limits, kernel


@kernel
def forward(first, last, code, sizes, bounds, examples, strides, tensors):
    """As `bdlru.forward`, for g [b, t, n, j], v [b, t, n], states [B, T, N]; h0 and final [S, N, m], newest first."""
    (stored, carried), (gs, vs) = examples, strides
    g, v, h0, states, final = tensors
    real = carried.dtype
    wanted = states != 0
    g, v, states = array_at(g, stored), array_at(v, stored), array_at(states, stored)
    h0, final = array_at(h0, carried), array_at(final, carried)
    length, channels, m, columns = sizes
    tiles = (channels + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    f = np.zeros((columns, WIDTH), real)
    value, inverse = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    out, raw = np.zeros((1, WIDTH), real), np.zeros((columns, WIDTH), real)
    shift, scale = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    window, new = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros(BLOCKS_PER_ITEM, real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, channels - n0)
        b, start, end = bounds[s]
        read_state(h0, s, m, channels, n0, lanes, window)
        for t0 in range(start, end, WIDTH // lanes):
            steps = min(WIDTH // lanes, end - t0)
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            gather_rows(g, at, gs[1], gs[2], 0, gs[3], steps, lanes, columns, f)
            gather(v, b * vs[0] + t0 * vs[1] + n0 * vs[2], vs[1], vs[2], steps, lanes, value)
            weights(code, f, raw, inverse, shift, scale, small_number(f), steps * lanes)
            for t in range(steps):
                at = t * lanes
                contract(f, 0, at, window, value, inverse, True, lanes, new)
                for i in range(m - 1, 0, -1):
                    for n in range(lanes):
                        window[i, n] = window[i - 1, n]
                for n in range(lanes):
                    window[0, n] = new[n]
                    out[0, at + n] = new[n]
            if wanted:
                scatter(out, states, (b * length + t0) * channels + n0, channels, 0, steps, lanes)
        write_state(window, s, m, channels, n0, lanes, final)


@kernel
def backward(first, last, code, sizes, bounds, examples, strides, tensors):
    """The reverse pass of `forward`: dg [B, T, columns, N], dv [B, T, N] contiguous. carry[k] is the adjoint,
    gathered so far, of the state k steps before the current one."""
    (stored, carried), (gs, vs, ss, dss) = examples, strides
    g, v, h0, states, dstates, dfinal, dg, dv, dh0 = tensors
    real = carried.dtype
    g, v = array_at(g, stored), array_at(v, stored)
    states, dstates = array_at(states, stored), array_at(dstates, stored)
    dg, dv = array_at(dg, stored), array_at(dv, stored)
    h0, dfinal, dh0 = array_at(h0, carried), array_at(dfinal, carried), array_at(dh0, carried)
    length, channels, m, columns = sizes
    tiles = (channels + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    f, raw = np.zeros((columns, WIDTH), real), np.zeros((columns, WIDTH), real)
    past = np.zeros((m, WIDTH), real)
    value, inverse = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    h, r = np.zeros(WIDTH, real), np.zeros((1, WIDTH), real)
    shift, scale = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    df, ds = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    least, largest = gradient_limits(dg)
    least, largest = real.type(least), real.type(largest)
    carry = np.zeros((m + 1, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, channels - n0)
        tile = WIDTH // lanes
        b, start, end = bounds[s]
        read_state(dfinal, s, m, channels, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            for k in range(m):
                lagged(
                    states, b * ss[0] + n0 * ss[2], ss, h0, (s * channels + n0) * m, m,
                    start, t0, k + 1, steps, lanes, past[k],
                )  # fmt: skip
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            gather_rows(g, at, gs[1], gs[2], 0, gs[3], steps, lanes, columns, f)
            if code != SOFTMAX:
                copy(f, raw, size)
            gather(v, b * vs[0] + t0 * vs[1] + n0 * vs[2], vs[1], vs[2], steps, lanes, value)
            gather(dstates, b * dss[0] + t0 * dss[1] + n0 * dss[2], dss[1], dss[2], steps, lanes, r[0])
            edge = weights(code, f, raw, inverse, shift, scale, least, size)
            contract_line(f, past, value, inverse, True, size, h)
            for t in range(steps - 1, -1, -1):
                at = t * lanes
                scale_adjoint(r[0], inverse, carry[0], at, lanes)
                for i in range(m):
                    for n in range(lanes):
                        carry[i, n] = carry[i + 1, n]
                spread_adjoint(f, 0, at, r[0, at : at + lanes], carry[:m], lanes)
            for j in range(columns):
                u = past[j] if j < m else value
                if edge:
                    edge_gradient(code, f[j], raw[j], shift, scale, r[0], u, h, largest, raw[j], size)
                else:
                    gate_gradient(code, f[j], raw[j], shift, r[0], u, h, df, ds, raw[j], size)
            for n in range(size):
                r[0, n] *= f[m, n]
            at = (b * length + t0) * columns * channels + n0
            scatter(raw, dg, at, columns * channels, channels, steps, lanes)
            scatter(r, dv, (b * length + t0) * channels + n0, channels, 0, steps, lanes)
        write_state(carry, s, m, channels, n0, lanes, dh0)
