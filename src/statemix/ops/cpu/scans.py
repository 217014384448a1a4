"""The kernels: BD-LRU (affine recurrences too) and H-LRU, forward and backward.

They walk work items `first` … `last` - 1. sizes: T, N, m, columns. bounds [S, 3]: batch row, first step and end of each
sequence. kinds: examples of the numbers of gates, values and states and of carried states, then the limits of the
gradients. tensors: addresses. What is written is contiguous, N innermost, but for states [S, N, m].
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from statemix.ops.cpu.gates import HARD, SOFTMAX, all_weights, edge_gradient, gate_gradient, weights
from statemix.ops.cpu.hard import hard_backward, hard_forward, hard_weights
from statemix.ops.cpu.numbers import kernel
from statemix.ops.cpu.tiles import (
    BLOCKS_PER_ITEM,
    WIDTH,
    array_at,
    contract,
    contract_line,
    copy,
    gather,
    lagged,
    read_state,
    scale_adjoint,
    scatter,
    spread_adjoint,
    spread_window,
    write_state,
)  # fmt: skip


@kernel
def bdlru_forward(first, last, code, sizes, bounds, kinds, strides, tensors):
    """tensors: g [b, t, n, i, j], v [b, t, n, i] (with `strides`), h0, states [B, T, m, N] (0: unwanted), final."""
    (stored, carried, _, _), (gs, vs) = kinds, strides
    g, v, h0, states, final = tensors
    real = carried.dtype
    wanted = states != 0
    g, v, states = array_at(g, stored), array_at(v, stored), array_at(states, stored)
    h0, final = array_at(h0, carried), array_at(final, carried)
    length, blocks, m, columns = sizes
    width = min(WIDTH, BLOCKS_PER_ITEM * max(length, 1))
    gated = columns == m + 1
    items = (blocks + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    hard, code = code >= HARD, code % HARD
    f, raw = np.zeros((m * columns, width), real), np.zeros((columns, width), real)
    flat = np.zeros(BLOCKS_PER_ITEM + 2 * m * (width + BLOCKS_PER_ITEM), real)
    lines = flat[BLOCKS_PER_ITEM:].reshape((2 * m, width + BLOCKS_PER_ITEM))
    out, value = lines[:m], lines[m:]
    place, sign, inverse = (
        np.zeros((m, width), np.int32),
        np.ones((m, width), real),
        np.zeros((m, width), real),
    )
    shift, scale = np.zeros(width, real), np.zeros(width, real)
    h, new = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros((m, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // items, (work % items) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, blocks - n0)
        b, start, end = bounds[s]
        read_state(h0, s, m, blocks, n0, lanes, h)
        for t0 in range(start, end, width // lanes):
            steps = min(width // lanes, end - t0)
            gather(g, gs, b, t0, n0, 0, steps, lanes, columns, f)
            gather(v, vs, b, t0, n0, 0, steps, lanes, 1, value)
            if hard:
                hard_forward(
                    code, f, raw, inverse, shift, scale, place, sign, flat, lines, lines.shape[1], h, lanes,
                    steps
                )  # fmt: skip
            else:
                all_weights(code, f, raw, inverse, shift, scale, steps * lanes)
                for t in range(steps):
                    at = t * lanes
                    for i in range(m):
                        contract(f, i * columns, at, h, value[i], inverse[i], gated, lanes, new[i])
                        for n in range(lanes):
                            out[i, at + n] = new[i, n]
                    h, new = new, h
            if wanted:
                scatter(out, states, b * length + t0, blocks, n0, steps, lanes)
        write_state(h, s, m, blocks, n0, lanes, final)


@kernel
def bdlru_backward(first, last, code, sizes, bounds, kinds, strides, tensors):
    """tensors: g, v, h0, states and dstates [b, t, n, i], dfinal; dg [B, T, m, columns, N], dv [B, T, m, N] and dh0."""
    (stored, carried, least, largest), (gs, vs, ss, dss) = kinds, strides
    g, v, h0, states, dstates, dfinal, dg, dv, dh0 = tensors
    real = carried.dtype
    least, largest = real.type(least), real.type(largest)
    g, v = array_at(g, stored), array_at(v, stored)
    states, dstates = array_at(states, stored), array_at(dstates, stored)
    dg, dv = array_at(dg, stored), array_at(dv, stored)
    h0, dfinal, dh0 = array_at(h0, carried), array_at(dfinal, carried), array_at(dh0, carried)
    length, blocks, m, columns = sizes
    width = min(WIDTH, BLOCKS_PER_ITEM * max(length, 1))
    gated = columns == m + 1
    items = (blocks + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    hard, code = code >= HARD, code % HARD
    f, raw = np.zeros((m * columns, width), real), np.zeros((m * columns, width), real)
    flat = np.zeros(BLOCKS_PER_ITEM + 2 * m * (width + BLOCKS_PER_ITEM), real)
    lines = flat[BLOCKS_PER_ITEM:].reshape((2 * m, width + BLOCKS_PER_ITEM))
    place, sign = np.zeros((m, width), np.int32), np.ones((m, width), real)
    value, inverse = np.zeros((m, width), real), np.zeros((m, width), real)
    past, h, r = np.zeros((m, width), real), np.zeros((m, width), real), np.zeros((m, width), real)
    shift, scale = np.zeros((m, width), real), np.zeros((m, width), real)
    df, ds, edge = np.zeros(width, real), np.zeros(width, real), np.zeros(m, np.bool_)
    adjoint, carry = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros((m, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // items, (work % items) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, blocks - n0)
        tile = width // lanes
        b, start, end = bounds[s]
        read_state(dfinal, s, m, blocks, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            gather(g, gs, b, t0, n0, 0, steps, lanes, columns, f)
            gather(v, vs, b, t0, n0, 0, steps, lanes, 1, value)
            gather(dstates, dss, b, t0, n0, 0, steps, lanes, 1, r)
            finite = True
            if code != SOFTMAX:
                copy(f, raw, size)
            lagged(states, ss, h0, s, b, blocks, n0, m, start, t0, 1, steps, lanes, past)
            for i in range(m):
                row, rows = f[i * columns : (i + 1) * columns], raw[i * columns : (i + 1) * columns]
                if hard:
                    edge[i], even = hard_weights(
                        code, row, rows, inverse[i], shift[i], scale[i], least,
                        lines.shape[1], (m + i) * lines.shape[1], lanes, ds, place[i], sign[i], size,
                    )  # fmt: skip
                    finite = finite and even
                else:
                    edge[i] = weights(code, row, rows, inverse[i], shift[i], scale[i], least, size, False)
                contract_line(row, past, value[i], inverse[i], gated, size, h[i])
            if hard:
                hard_backward(
                    finite, f, inverse, place, sign, flat, lines, lines.shape[1], r, carry, lanes, steps
                )
            else:
                for t in range(steps - 1, -1, -1):
                    at = t * lanes
                    adjoint[:] = 0
                    for i in range(m):
                        scale_adjoint(r[i], inverse[i], carry[i], at, lanes)
                        spread_adjoint(f, i * columns, at, r[i, at : at + lanes], adjoint, lanes)
                    carry, adjoint = adjoint, carry
            for k in range(m * columns):
                i, j = k // columns, k % columns
                u = past[j] if j < m else value[i]
                if edge[i]:
                    edge_gradient(
                        code, f[k], raw[k], shift[i], scale[i], r[i], u, h[i], largest, raw[k], size
                    )
                else:
                    gate_gradient(code, f[k], raw[k], shift[i], r[i], u, h[i], df, ds, raw[k], size)
            if not hard:
                for i in range(m):
                    for n in range(size):
                        lines[m + i, n] = r[i, n] * f[i * columns + m, n] if gated else r[i, n]
            scatter(raw, dg, b * length + t0, blocks, n0, steps, lanes)
            scatter(lines[m:], dv, b * length + t0, blocks, n0, steps, lanes)
        write_state(carry, s, m, blocks, n0, lanes, dh0)


@kernel
def hlru_forward(first, last, code, sizes, bounds, kinds, strides, tensors):
    """As `bdlru_forward`, for g [b, t, n, j], v [b, t, n], states [B, T, N]; h0 and final newest first."""
    (stored, carried, _, _), (gs, vs) = kinds, strides
    g, v, h0, states, final = tensors
    real = carried.dtype
    wanted = states != 0
    g, v, states = array_at(g, stored), array_at(v, stored), array_at(states, stored)
    h0, final = array_at(h0, carried), array_at(final, carried)
    length, channels, m, columns = sizes
    width = min(WIDTH, BLOCKS_PER_ITEM * max(length, 1))
    items = (channels + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    hard, code = code >= HARD, code % HARD
    f, raw = np.zeros((columns, width), real), np.zeros((columns, width), real)
    flat = np.zeros(m * BLOCKS_PER_ITEM + 2 * width, real)
    lines = flat[m * BLOCKS_PER_ITEM :].reshape((2, width))
    out, value = lines[:1], lines[1:]
    place, sign, inverse = (
        np.zeros((1, width), np.int32),
        np.ones((1, width), real),
        np.zeros((1, width), real),
    )
    shift, scale = np.zeros(width, real), np.zeros(width, real)
    window, new = np.zeros((m, BLOCKS_PER_ITEM), real), np.zeros(BLOCKS_PER_ITEM, real)
    for work in range(first, last):
        s, n0 = work // items, (work % items) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, channels - n0)
        b, start, end = bounds[s]
        read_state(h0, s, m, channels, n0, lanes, window)
        for t0 in range(start, end, width // lanes):
            steps = min(width // lanes, end - t0)
            gather(g, gs, b, t0, n0, 0, steps, lanes, 1, f)
            gather(v, vs, b, t0, n0, 0, steps, lanes, 1, value)
            if hard:
                hard_forward(
                    code, f, raw, inverse, shift, scale, place, sign, flat, lines, -lanes, window, lanes, steps
                )  # fmt: skip
            else:
                all_weights(code, f, raw, inverse, shift, scale, steps * lanes)
                for t in range(steps):
                    at = t * lanes
                    contract(f, 0, at, window, value[0], inverse[0], True, lanes, new)
                    for i in range(m - 1, 0, -1):
                        for n in range(lanes):
                            window[i, n] = window[i - 1, n]
                    for n in range(lanes):
                        window[0, n] = new[n]
                        out[0, at + n] = new[n]
            if wanted:
                scatter(out, states, b * length + t0, channels, n0, steps, lanes)
        write_state(window, s, m, channels, n0, lanes, final)


@kernel
def hlru_backward(first, last, code, sizes, bounds, kinds, strides, tensors):
    """As `bdlru_backward`; carry[k] is the adjoint, gathered so far, of the state k steps before the current one."""
    (stored, carried, least, largest), (gs, vs, ss, dss) = kinds, strides
    g, v, h0, states, dstates, dfinal, dg, dv, dh0 = tensors
    real = carried.dtype
    least, largest = real.type(least), real.type(largest)
    g, v = array_at(g, stored), array_at(v, stored)
    states, dstates = array_at(states, stored), array_at(dstates, stored)
    dg, dv = array_at(dg, stored), array_at(dv, stored)
    h0, dfinal, dh0 = array_at(h0, carried), array_at(dfinal, carried), array_at(dh0, carried)
    length, channels, m, columns = sizes
    width = min(WIDTH, BLOCKS_PER_ITEM * max(length, 1))
    items = (channels + BLOCKS_PER_ITEM - 1) // BLOCKS_PER_ITEM
    hard, code = code >= HARD, code % HARD
    f, raw = np.zeros((columns, width), real), np.zeros((columns, width), real)
    flat = np.zeros(m * BLOCKS_PER_ITEM + 2 * width, real)
    lines = flat[m * BLOCKS_PER_ITEM :].reshape((2, width))
    place, sign = np.zeros((1, width), np.int32), np.ones((1, width), real)
    past, h = np.zeros((m, width), real), np.zeros(width, real)
    value, r, inverse = np.zeros((1, width), real), np.zeros((1, width), real), np.zeros((1, width), real)
    shift, scale = np.zeros(width, real), np.zeros(width, real)
    df, ds = np.zeros(width, real), np.zeros(width, real)
    carry = np.zeros((m + 1, BLOCKS_PER_ITEM), real)
    for work in range(first, last):
        s, n0 = work // items, (work % items) * BLOCKS_PER_ITEM
        lanes = min(BLOCKS_PER_ITEM, channels - n0)
        tile = width // lanes
        b, start, end = bounds[s]
        read_state(dfinal, s, m, channels, n0, lanes, carry)
        for t0 in range(start + (end - start - 1) // tile * tile, start - 1, -tile):
            steps = min(tile, end - t0)
            size = steps * lanes
            gather(g, gs, b, t0, n0, 0, steps, lanes, 1, f)
            gather(v, vs, b, t0, n0, 0, steps, lanes, 1, value)
            gather(dstates, dss, b, t0, n0, 0, steps, lanes, 1, r)
            finite = True
            if code != SOFTMAX:
                copy(f, raw, size)
            for k in range(m):
                line = past[k : k + 1]
                lagged(states, ss, h0, s, b, channels, n0, m, start, t0, k + 1, steps, lanes, line)
            if hard:
                edge, finite = hard_weights(
                    code, f, raw, inverse[0], shift, scale, least, -lanes, width, lanes, ds, place[0], sign[0],
                    size
                )  # fmt: skip
            else:
                edge = weights(code, f, raw, inverse[0], shift, scale, least, size, False)
            contract_line(f, past, value[0], inverse[0], True, size, h)
            if hard:
                hard_backward(
                    finite, f, inverse, place, sign, flat, lines, -lanes, r, carry[:m], lanes, steps
                )
            else:
                spread_window(f, inverse[0], r[0], carry, lanes, steps)
            for j in range(columns):
                u = past[j] if j < m else value[0]
                if edge:
                    edge_gradient(code, f[j], raw[j], shift, scale, r[0], u, h, largest, raw[j], size)
                else:
                    gate_gradient(code, f[j], raw[j], shift, r[0], u, h, df, ds, raw[j], size)
            if not hard:
                for n in range(size):
                    lines[1, n] = r[0, n] * f[m, n]
            scatter(raw, dg, b * length + t0, channels, n0, steps, lanes)
            scatter(lines[1:], dv, b * length + t0, channels, n0, steps, lanes)
        write_state(carry, s, m, channels, n0, lanes, dh0)
