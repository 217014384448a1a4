"""BD-LRU and affine recurrences for blocks of up to 16 channels, in plain Triton.

A program is one warp; a lane owns one row of one block and walks through time, and the lanes of a block tell each
other their component of the state. Time goes in tiles of STEPS: the numbers of the next tile are asked for before
this one is walked, and the rows of gates are normalised (backward: differentiated) for a whole tile at once.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.portable_parts import (
    block_lanes,
    decode,
    floats,
    kernel,
    load_columns,
    row_slopes,
    span,
    stack,
    store,
    unstack,
    unstack_all,
)
from statemix.ops.triton.rows import rotate, row_weights


@triton.jit
def ask_rows(g, gs, v, vs, s, mask, COLUMNS: tl.constexpr):
    """Rows of gates and values of the steps s [STEPS, 1] from g and v [LANES] on, raw."""
    asked = load_columns(g[None, :] + s * gs[1], gs[4], mask, COLUMNS)
    return asked + (tl.load(v[None, :] + s * vs[1], mask=mask, other=0.0),)


@triton.jit
def step_block(h, a, p, k: tl.constexpr, base, M: tl.constexpr):
    """h_t = A_t h_{t-1} + a_t at step k of a tile: p[j][k] is column j of the transition, a[k] what comes in."""
    new = a[k]
    for j in tl.static_range(M):
        new += p[j][k] * tl.gather(h, base + j, 0)
    return new


@kernel
def block_forward(
    g, v, initial, states, final, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr,
    STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """States and final states; a tensor is followed by its strides. One program: a sequence or segment, some blocks."""
    gs, vs, ins, ss, fs = decode(strides)
    tiles = tl.cdiv(N, LANES // M)
    work = tl.program_id(0) // tiles
    n, i, base, live = block_lanes(tl.program_id(0) % tiles, N, M, LANES)
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    g += row * gs[0] + start * gs[1] + n * gs[2] + i * gs[3]
    v += row * vs[0] + start * vs[1] + n * vs[2] + i * vs[3]
    states += row * ss[0] + start * ss[1] + n * ss[2] + i * ss[3]
    h = tl.load(initial + work.to(tl.int64) * ins[0] + n * ins[1] + i * ins[2], mask=live, other=0.0)
    s = tl.arange(0, STEPS)[:, None]
    asked = ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, STEPS):
        x = floats(asked, COLUMNS + 1)
        g, v = g + STEPS * gs[1], v + STEPS * vs[1]
        asked = ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - STEPS), COLUMNS)
        p, inverse = row_weights(x[:COLUMNS], CODE, COLUMNS, FAST)
        a = unstack(x[COLUMNS] * p[M] if COLUMNS > M else x[COLUMNS], STEPS, LANES)
        p = unstack_all(p, M, STEPS, LANES)
        walked = ()
        for k in tl.static_range(STEPS):
            h = tl.where(t + k < end, step_block(h, a, p, k, base, M), h)
            walked = walked + (h,)
        store(states[None, :] + s * ss[1], stack(walked, STEPS, LANES), live[None, :] & (s < end - t))
        states += STEPS * ss[1]
    store(final + sequence * fs[0] + n * fs[1] + i * fs[2], h, live & (end == last))


@triton.jit
def _step_back(adjoint, turned, k: tl.constexpr, i, base, M: tl.constexpr):
    """The transposed transition: lane j receives the sum over the rows i of p[i][j] adjoint_i.

    Rows are turned by their i, so that what a lane sends lies under the same entry, in the same register, in all.
    """
    carry = adjoint * 0.0
    for q in tl.static_range(M):
        carry += tl.gather(turned[q][k] * adjoint, base + tl.where(i + q < M, i + q, i + q - M), 0)
    return carry


@triton.jit
def _ask_back(g, gs, v, vs, states, ss, grad, ds, s, left, before, live, COLUMNS: tl.constexpr):
    """Rows of gates, values, gradients and the states before the steps s back, raw.

    `left` steps are left, and `before` come before those in the same sequence.
    """
    mask = live[None, :] & (s < left)
    gradient = tl.load(grad[None, :] - s * ds[1], mask=mask, other=0.0)
    past = tl.load(states[None, :] - s * ss[1], mask=mask & (s < left - 1 + before), other=0.0)
    return ask_rows(g, gs, v, vs, -s, mask, COLUMNS) + (gradient, past)


@kernel
def block_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr,
    STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """The reverse pass of `block_forward`: h is computed again from the states before, the adjoint is carried."""
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    tiles = tl.cdiv(N, LANES // M)
    work = tl.program_id(0) // tiles
    n, i, base, live = block_lanes(tl.program_id(0) % tiles, N, M, LANES)
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    g += row * gs[0] + (end - 1) * gs[1] + n * gs[2] + i * gs[3]
    v += row * vs[0] + (end - 1) * vs[1] + n * vs[2] + i * vs[3]
    states += row * ss[0] + (end - 2) * ss[1] + n * ss[2] + i * ss[3]
    grad += row * ds[0] + (end - 1) * ds[1] + n * ds[2] + i * ds[3]
    dg += row * dgs[0] + (end - 1) * dgs[1] + n * dgs[2] + i * dgs[3]
    dv += row * dvs[0] + (end - 1) * dvs[1] + n * dvs[2] + i * dvs[3]
    begin = tl.load(initial + sequence * ins[0] + n * ins[1] + i * ins[2], mask=live, other=0.0)
    carry = tl.load(dfinal + work.to(tl.int64) * dfs[0] + n * dfs[1] + i * dfs[2], mask=live, other=0.0)
    component = i.to(tl.int32)
    before = start - first
    s = tl.arange(0, STEPS)[:, None]  # steps back from the last one in hand
    asked = _ask_back(g, gs, v, vs, states, ss, grad, ds, s, end - start, before, live, COLUMNS)
    for done in range(0, end - start, STEPS):
        left = end - start - done
        x = floats(asked, COLUMNS + 3)
        g, v = g - STEPS * gs[1], v - STEPS * vs[1]
        states, grad = states - STEPS * ss[1], grad - STEPS * ds[1]
        asked = _ask_back(g, gs, v, vs, states, ss, grad, ds, s, left - STEPS, before, live, COLUMNS)
        value, gradient, past = x[COLUMNS:]
        past = tl.where(s < left - 1 + before, past, begin[None, :])
        u = ()
        for j in tl.static_range(M):
            u = u + (tl.gather(past, (base + j)[None, :] + s * 0, 1),)
        p, inverse = row_weights(x[:COLUMNS], CODE, COLUMNS, FAST)
        h = value * p[M] if COLUMNS > M else value
        for j in tl.static_range(M):
            h += p[j] * u[j]
        slopes = row_slopes(x, p, inverse, u + (value,), h, CODE, COLUMNS)
        turned = unstack_all(rotate(p, component[None, :], M), M, STEPS, LANES)
        gradient = unstack(gradient, STEPS, LANES)
        adjoints = ()
        for k in tl.static_range(STEPS):
            adjoint = gradient[k] + carry
            adjoints = adjoints + (adjoint,)
            carry = tl.where(k < left, _step_back(adjoint, turned, k, component, base, M), carry)
        adjoint = stack(adjoints, STEPS, LANES)
        mask = live[None, :] & (s < left)
        for j in tl.static_range(COLUMNS):
            store(dg[None, :] - s * dgs[1] + j * dgs[4], adjoint * slopes[j], mask)
        store(dv[None, :] - s * dvs[1], adjoint * p[M] if COLUMNS > M else adjoint, mask)
        dg, dv = dg - STEPS * dgs[1], dv - STEPS * dvs[1]
    store(dinitial + sequence * dis[0] + n * dis[1] + i * dis[2], carry, live & (start == first))
