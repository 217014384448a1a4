"""BD-LRU and affine recurrences, forward and backward."""

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
    """Walk sequences and blocks `first` … `last` - 1 of all work items forward in time.

    tensors: addresses of g [b, t, n, i, j], v [b, t, n, i] (with `strides`), h0 and final [S, N, m], states
    [B, T, m, N] (contiguous; 0 where not wanted). examples: arrays of the numbers of g, v and states, and of h0 and
    final. sizes: T, N, m, columns. bounds [S, 3]: batch row, first step, end of each sequence.
    """
    (stored, carried), (gs, vs) = examples, strides
    g, v, h0, states, final = tensors
    real = carried.dtype
    wanted = states != 0
    g, v, states = array_at(g, stored), array_at(v, stored), array_at(states, stored)
    h0, final = array_at(h0, carried), array_at(final, carried)
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    f = np.zeros((m * columns, WIDTH), real)
    value, inverse = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    out, raw = np.zeros((m, WIDTH), real), np.zeros((columns, WIDTH), real)
    shift, scale = np.zeros(WIDTH, real), np.zeros(WIDTH, real)
    h, new = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros((m, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, blocks - n0)
        b, start, end = bounds[s]
        read_state(h0, s, m, blocks, n0, lanes, h)
        for t0 in range(start, end, WIDTH // lanes):
            steps = min(WIDTH // lanes, end - t0)
            size = steps * lanes
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            gather_rows(g, at, gs[1], gs[2], gs[3], gs[4], steps, lanes, columns, f)
            for i in range(m):
                at = b * vs[0] + t0 * vs[1] + n0 * vs[2] + i * vs[3]
                gather(v, at, vs[1], vs[2], steps, lanes, value[i])
                row = f[i * columns : (i + 1) * columns]
                weights(code, row, raw, inverse[i], shift, scale, small_number(f), size)
            for t in range(steps):
                at = t * lanes
                for i in range(m):
                    contract(f, i * columns, at, h, value[i], inverse[i], gated, lanes, new[i])
                    for n in range(lanes):
                        out[i, at + n] = new[i, n]
                h, new = new, h
            at = (b * length + t0) * m * blocks + n0
            if wanted:
                scatter(out, states, at, m * blocks, blocks, steps, lanes)
        write_state(h, s, m, blocks, n0, lanes, final)


@kernel
def backward(first, last, code, sizes, bounds, examples, strides, tensors):
    """The reverse pass of `forward`: states and dstates [b, t, n, i] with strides; dg [B, T, m, columns, N],
    dv [B, T, m, N], dfinal and dh0 [S, N, m] contiguous."""
    (stored, carried), (gs, vs, ss, dss) = examples, strides
    g, v, h0, states, dstates, dfinal, dg, dv, dh0 = tensors
    real = carried.dtype
    g, v = array_at(g, stored), array_at(v, stored)
    states, dstates = array_at(states, stored), array_at(dstates, stored)
    dg, dv = array_at(dg, stored), array_at(dv, stored)
    h0, dfinal, dh0 = array_at(h0, carried), array_at(dfinal, carried), array_at(dh0, carried)
    length, blocks, m, columns = sizes
    gated = columns == m + 1
    tiles = (blocks + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    f, raw = np.zeros((m * columns, WIDTH), real), np.zeros((m * columns, WIDTH), real)
    value, inverse = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    past, h, r = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    shift, scale = np.zeros((m, WIDTH), real), np.zeros((m, WIDTH), real)
    df, ds, edge = np.zeros(WIDTH, real), np.zeros(WIDTH, real), np.zeros(m, np.bool_)
    least, largest = gradient_limits(dg)
    least, largest = real.type(least), real.type(largest)
    adjoint, carry = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros((m, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // tiles, (work % tiles) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, blocks - n0)
        tile = WIDTH // lanes
        b, start, end = bounds[s]
        read_state(dfinal, s, m, blocks, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            for i in range(m):
                lagged(
                    states, b * ss[0] + n0 * ss[2] + i * ss[3], ss, h0, (s * blocks + n0) * m + i, m,
                    start, t0, 1, steps, lanes, past[i],
                )  # fmt: skip
            at = b * gs[0] + t0 * gs[1] + n0 * gs[2]
            gather_rows(g, at, gs[1], gs[2], gs[3], gs[4], steps, lanes, columns, f)
            if code != SOFTMAX:
                copy(f, raw, size)
            for i in range(m):
                row = f[i * columns : (i + 1) * columns]
                gather(
                    v, b * vs[0] + t0 * vs[1] + n0 * vs[2] + i * vs[3], vs[1], vs[2], steps, lanes, value[i]
                )
                at = b * dss[0] + t0 * dss[1] + n0 * dss[2] + i * dss[3]
                gather(dstates, at, dss[1], dss[2], steps, lanes, r[i])
                rows = raw[i * columns : (i + 1) * columns]
                edge[i] = weights(code, row, rows, inverse[i], shift[i], scale[i], least, size)
                contract_line(row, past, value[i], inverse[i], gated, size, h[i])
            for t in range(steps - 1, -1, -1):
                at = t * lanes
                adjoint[:] = 0
                for i in range(m):
                    scale_adjoint(r[i], inverse[i], carry[i], at, lanes)
                    spread_adjoint(f, i * columns, at, r[i, at : at + lanes], adjoint, lanes)
                carry, adjoint = adjoint, carry
            for i in range(m):
                for j in range(columns):
                    k = i * columns + j
                    u = past[j] if j < m else value[i]
                    if edge[i]:
                        edge_gradient(
                            code, f[k], raw[k], shift[i], scale[i], r[i], u, h[i], largest, raw[k], size
                        )
                    else:
                        gate_gradient(code, f[k], raw[k], shift[i], r[i], u, h[i], df, ds, raw[k], size)
                if gated:
                    for n in range(size):
                        r[i, n] *= f[i * columns + m, n]
            at = (b * length + t0) * m * columns * blocks + n0
            scatter(raw, dg, at, m * columns * blocks, blocks, steps, lanes)
            scatter(r, dv, (b * length + t0) * m * blocks + n0, m * blocks, blocks, steps, lanes)
        write_state(carry, s, m, blocks, n0, lanes, dh0)
