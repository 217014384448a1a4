"""BD-LRU and affine recurrences for blocks of up to 16 channels, in plain Triton.

A program is one warp; a lane owns one row of one block and walks through time, and the lanes of a block tell each
other their component of the state. Time goes in tiles of BLOCK_T: the numbers of the next tile are loaded for before
this one is walked, and the rows of gates are normalised (backward: differentiated) for a whole tile at once.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import rotate, row_weights
from statemix.ops.triton.portable.common import (
    block_program,
    decode,
    floats,
    kernel,
    load_rows,
    row_at,
    row_slopes,
    span,
    stack,
    state_at,
    store,
    unstack,
    unstack_all,
)


@triton.jit
def step_block(h, a, p, k: tl.constexpr, base, M: tl.constexpr):
    """h_t = A_t h_{t-1} + a_t at step k of a tile: p[j][k] is column j of the transition, a[k] what comes in."""
    new = a[k]
    for j in tl.static_range(M):
        new += p[j][k] * tl.gather(h, base + j, 0)
    return new


@kernel
def small_block_forward(
    g, v, initial, states, final, strides, bounds, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """States and final states; a tensor is followed by its strides. One program: a sequence or chunk, some blocks."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ins, ss, fs = decode(strides)
    work, n, i, base, live = block_program(N, CFG)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    g = row_at(g, gs, row, start, n, i)
    v = row_at(v, vs, row, start, n, i)
    states = row_at(states, ss, row, start, n, i)
    h = tl.load(state_at(initial, ins, work.to(tl.int64), n, i), mask=live, other=0.0)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, BLOCK_T):
        x = floats(loaded, COLUMNS + 1)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), COLUMNS)
        p, inverse = row_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
        a = unstack(x[COLUMNS] * p[M] if COLUMNS > M else x[COLUMNS], BLOCK_T, LANES)
        p = unstack_all(p, M, BLOCK_T, LANES)
        walked = ()
        for k in tl.static_range(BLOCK_T):
            h = tl.where(t + k < end, step_block(h, a, p, k, base, M), h)
            walked = walked + (h,)
        store(states[None, :] + s * ss[1], stack(walked, BLOCK_T, LANES), live[None, :] & (s < end - t))
        states += BLOCK_T * ss[1]
    store(state_at(final, fs, sequence, n, i), h, live & (end == last))


@triton.jit
def _step_back(adjoint, rotated, k: tl.constexpr, i, base, M: tl.constexpr):
    """The transposed transition: lane j receives the sum over the rows i of p[i][j] adjoint_i.

    Rows are rotated by their i, so that what a lane sends lies under the same entry, in the same register, in all.
    """
    carry = adjoint * 0.0
    for q in tl.static_range(M):
        carry += tl.gather(rotated[q][k] * adjoint, base + tl.where(i + q < M, i + q, i + q - M), 0)
    return carry


@triton.jit
def _load_back(g, gs, v, vs, states, ss, grad, ds, s, left, before, live, COLUMNS: tl.constexpr):
    """Rows of gates, values, gradients and the states before the steps s back, raw.

    `left` steps are left, and `before` come before those in the same sequence.
    """
    mask = live[None, :] & (s < left)
    gradient = tl.load(grad[None, :] - s * ds[1], mask=mask, other=0.0)
    past = tl.load(states[None, :] - s * ss[1], mask=mask & (s < left - 1 + before), other=0.0)
    return load_rows(g, gs, v, vs, -s, mask, COLUMNS) + (gradient, past)


@kernel
def small_block_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, strides, bounds, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The reverse pass of `small_block_forward`: h is computed again from the states before, the adjoint is carried."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    work, n, i, base, live = block_program(N, CFG)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    g = row_at(g, gs, row, end - 1, n, i)
    v = row_at(v, vs, row, end - 1, n, i)
    states = row_at(states, ss, row, end - 2, n, i)
    grad = row_at(grad, ds, row, end - 1, n, i)
    dg = row_at(dg, dgs, row, end - 1, n, i)
    dv = row_at(dv, dvs, row, end - 1, n, i)
    begin = tl.load(state_at(initial, ins, sequence, n, i), mask=live, other=0.0)
    carry = tl.load(state_at(dfinal, dfs, work.to(tl.int64), n, i), mask=live, other=0.0)
    component = i.to(tl.int32)
    before = start - first
    s = tl.arange(0, BLOCK_T)[:, None]  # steps back from the last one in hand
    loaded = _load_back(g, gs, v, vs, states, ss, grad, ds, s, end - start, before, live, COLUMNS)
    for done in range(0, end - start, BLOCK_T):
        left = end - start - done
        x = floats(loaded, COLUMNS + 3)
        g, v = g - BLOCK_T * gs[1], v - BLOCK_T * vs[1]
        states, grad = states - BLOCK_T * ss[1], grad - BLOCK_T * ds[1]
        loaded = _load_back(g, gs, v, vs, states, ss, grad, ds, s, left - BLOCK_T, before, live, COLUMNS)
        value, gradient, past = x[COLUMNS:]
        past = tl.where(s < left - 1 + before, past, begin[None, :])
        u = ()
        for j in tl.static_range(M):
            u = u + (tl.gather(past, (base + j)[None, :] + s * 0, 1),)
        p, inverse = row_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
        h = value * p[M] if COLUMNS > M else value
        for j in tl.static_range(M):
            h += p[j] * u[j]
        slopes = row_slopes(x, p, inverse, u + (value,), h, CFG.NORM, COLUMNS)
        rotated = unstack_all(rotate(p, component[None, :], M), M, BLOCK_T, LANES)
        gradient = unstack(gradient, BLOCK_T, LANES)
        adjoints = ()
        for k in tl.static_range(BLOCK_T):
            adjoint = gradient[k] + carry
            adjoints = adjoints + (adjoint,)
            carry = tl.where(k < left, _step_back(adjoint, rotated, k, component, base, M), carry)
        adjoint = stack(adjoints, BLOCK_T, LANES)
        mask = live[None, :] & (s < left)
        for j in tl.static_range(COLUMNS):
            store(dg[None, :] - s * dgs[1] + j * dgs[4], adjoint * slopes[j], mask)
        store(dv[None, :] - s * dvs[1], adjoint * p[M] if COLUMNS > M else adjoint, mask)
        dg, dv = dg - BLOCK_T * dgs[1], dv - BLOCK_T * dvs[1]
    store(state_at(dinitial, dis, sequence, n, i), carry, live & (start == first))
