"""The kernels of `launch`. Segments are walked forwards, whichever way the recurrence runs.

Backward, the adjoint that leaves a chunk's start is the sum over its steps t of P_t transposed times the gradient
of h_t, with P_t the product up to step t: it is gathered beside the product, without a reverse walk.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import row_weights
from statemix.ops.triton.portable.common import (
    block_program,
    channel_at,
    channel_program,
    choose,
    decode,
    floats,
    kernel,
    load_rows,
    row_at,
    span,
    state_at,
    unstack,
    unstack_all,
)
from statemix.ops.triton.portable.large_block import tile_weights
from statemix.ops.triton.portable.large_order import lag, load_lagged
from statemix.ops.triton.portable.small_order import step_window


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (tl.zeros([LANES], tl.float32),)
    return zeros


@triton.jit
def _move_block(columns, p, k: tl.constexpr, base, M: tl.constexpr, COUNT: tl.constexpr):
    """COUNT columns of a block's matrix through step k of a tile; a lane holds its row of each."""
    moved = ()
    for c in tl.static_range(COUNT):
        new = p[0][k] * tl.gather(columns[c], base, 0)
        for j in tl.static_range(1, M):
            new += p[j][k] * tl.gather(columns[c], base + j, 0)
        moved = moved + (new,)
    return moved


@triton.jit
def _add_products(gathered, columns, gradient, M: tl.constexpr):
    """What a step adds to the adjoint at the chunk's start."""
    added = ()
    for c in tl.static_range(M):
        added = added + (gathered[c] + columns[c] * gradient,)
    return added


@triton.jit
def _sum_rows(gathered, i, base, M: tl.constexpr):
    """Entry c of the tuple, summed over the rows of the block, in the lane of component c."""
    total = gathered[0] * 0.0
    for c in tl.static_range(M):
        one = tl.gather(gathered[c], base, 0)
        for j in tl.static_range(1, M):
            one += tl.gather(gathered[c], base + j, 0)
        total = tl.where(i == c, one, total)
    return total


@kernel
def small_block_summary(
    g, v, products, offsets, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """BD-LRU and affine recurrences; v is the gradient of the states if REVERSE. A lane owns one row of P.

    Forward, the offset is one more column, which starts at zero and takes in the values.
    """
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ps, os = decode(strides)
    work, n, i, base, live = block_program(N, CFG)
    row, sequence, first, start, end, last = span(None, work, T, chunk, num_chunks)
    g = row_at(g, gs, row, start, n, i)
    v = row_at(v, vs, row, start, n, i)
    COUNT: tl.constexpr = M if CFG.REVERSE else M + 1
    columns, gathered = (), _zeros(M, LANES)
    for c in tl.static_range(COUNT):
        columns = columns + (tl.where(i == c, 1.0, 0.0),)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, BLOCK_T):
        x = floats(loaded, COLUMNS + 1)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), COLUMNS)
        p, inverse = row_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
        a = unstack(x[COLUMNS] if CFG.REVERSE or COLUMNS == M else x[COLUMNS] * p[M], BLOCK_T, LANES)
        p = unstack_all(p, M, BLOCK_T, LANES)
        for k in tl.static_range(BLOCK_T):
            moved = _move_block(columns, p, k, base, M, COUNT)
            if CFG.REVERSE:
                gathered = choose(t + k < end, _add_products(gathered, moved, a[k], M), gathered, M)
            else:
                moved = moved[:M] + (moved[M] + a[k],)
            columns = choose(t + k < end, moved, columns, COUNT)
    products += work.to(tl.int64) * ps[0] + n * ps[1] + i * ps[2]
    for c in tl.static_range(M):
        tl.store(products + c * ps[3], columns[c], mask=live)
    offset = _sum_rows(gathered, i, base, M) if CFG.REVERSE else columns[M]
    tl.store(state_at(offsets, os, work.to(tl.int64), n, i), offset, mask=live)


@triton.jit
def _unit_windows(M: tl.constexpr, COUNT: tl.constexpr, LANES: tl.constexpr):
    """The columns of the identity, as windows of M numbers; column M, the offset, is zeros."""
    zeros, one = _zeros(M, LANES), tl.full([LANES], 1.0, tl.float32)
    windows = ()
    for c in tl.static_range(COUNT):
        windows = windows + (zeros[:c] + (one,) + zeros[c + 1 :] if c < M else zeros,)
    return windows


@kernel
def small_order_summary(
    g, v, products, offsets, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """H-LRU; a lane owns a channel and all columns of its P, each of them a window."""
    M: tl.constexpr = CFG.M
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ps, os = decode(strides)
    work, n, live = channel_program(N, CFG)
    row, sequence, first, start, end, last = span(None, work, T, chunk, num_chunks)
    g = channel_at(g, gs, row, start, n)
    v = channel_at(v, vs, row, start, n)
    COUNT: tl.constexpr = M if CFG.REVERSE else M + 1
    columns, gathered, none = _unit_windows(M, COUNT, LANES), _zeros(M, LANES), tl.zeros([LANES], tl.float32)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), M + 1)
    for t in range(start, end, BLOCK_T):
        x = floats(loaded, M + 2)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), M + 1)
        p, inverse = row_weights(x[: M + 1], CFG.NORM, M + 1, CFG.FAST)
        a = unstack(x[M + 1] if CFG.REVERSE else x[M + 1] * p[M], BLOCK_T, LANES)
        p = unstack_all(p, M, BLOCK_T, LANES)
        for k in tl.static_range(BLOCK_T):
            moved, newest = (), ()
            for c in tl.static_range(COUNT):
                window = step_window(columns[c], a[k] if c == M else none, p, k, M)
                moved = moved + (choose(t + k < end, window, columns[c], M),)
                newest = newest + (window[0],)
            columns = moved
            if CFG.REVERSE:
                gathered = choose(t + k < end, _add_products(gathered, newest, a[k], M), gathered, M)
    products += work.to(tl.int64) * ps[0] + n * ps[1]
    offsets += work.to(tl.int64) * os[0] + n * os[1]
    for q in tl.static_range(M):
        for c in tl.static_range(M):
            tl.store(products + q * ps[2] + c * ps[3], columns[c][q], mask=live)
        tl.store(offsets + q * os[2], gathered[q] if CFG.REVERSE else columns[M][q], mask=live)


@kernel
def large_order_summary(
    g, v, products, offsets, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The same for higher orders, as in `large_order_forward`: a program moves one column and reads all gates."""
    M: tl.constexpr = CFG.M
    LANES: tl.constexpr = CFG.LANES
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs, ps, os = decode(strides)
    tiles, count = tl.cdiv(N, LANES), M if CFG.REVERSE else M + 1
    work, column = tl.program_id(0) // tiles // count, tl.program_id(0) // tiles % count
    n = (tl.program_id(0) % tiles).to(tl.int64) * LANES + tl.arange(0, LANES)
    row, sequence, first, start, end, last = span(None, work, T, chunk, num_chunks)
    c = tl.arange(0, SIZE)[:, None]
    live = n < N
    inside = live[None, :] & (c < M)
    g += row * gs[0] + n * gs[2]
    v += row * vs[0] + n * vs[2]
    window = tl.where(inside & (lag(start * 0, c, M) == column), 1.0, 0.0)
    gathered = tl.zeros([LANES], tl.float32)
    loaded = load_lagged(g, gs, v, vs, start, start, c, inside & (start < end), live & (start < end), M)
    for t in range(start, end):
        x, gate, value = loaded[0].to(tl.float32), loaded[1].to(tl.float32), loaded[2].to(tl.float32)
        more = t + 1 < end
        loaded = load_lagged(g, gs, v, vs, t + 1, start, c, inside & more, live & more, M)
        p, p_last, inverse, shift = tile_weights(x, gate, inside, CFG.NORM, M + 1)
        h = tl.sum(p * window, 0)
        if CFG.REVERSE:
            gathered += h * value
        else:
            h = tl.where(column == M, h + p_last * value, h)
        window = tl.where(c == (t - start) % M, h[None, :], window)
    products += work.to(tl.int64) * ps[0] + n * ps[1] + column * ps[3]
    offsets += work.to(tl.int64) * os[0] + n * os[1]
    place = lag(end - start, c, M)
    tl.store(products[None, :] + place * ps[2], window, mask=inside & (column < M))
    if CFG.REVERSE:
        tl.store(offsets + column * os[2], gathered, mask=live)
    else:
        tl.store(offsets[None, :] + place * os[2], window, mask=inside & (column == M))
