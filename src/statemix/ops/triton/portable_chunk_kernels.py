"""The kernels of `portable_chunks`. Segments are walked forwards, whichever way the recurrence runs.

Backward, the adjoint that leaves a segment's start is the sum over its steps t of P_t transposed times the gradient
of h_t, with P_t the product up to step t: it is gathered beside the product, without a reverse walk.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton import portable_block, portable_order, portable_ring
from statemix.ops.triton.portable_parts import (
    block_lanes,
    choose,
    decode,
    floats,
    kernel,
    span,
    unstack,
    unstack_all,
)
from statemix.ops.triton.portable_wide import tile_weights
from statemix.ops.triton.rows import row_weights


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
    """What a step adds to the adjoint at the segment's start."""
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
def block_products(
    g, v, products, offsets, strides, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, REVERSE: tl.constexpr,
    STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """BD-LRU and affine recurrences; v is the gradient of the states if REVERSE. A lane owns one row of P.

    Forward, the offset is one more column, which starts at zero and takes in the values.
    """
    gs, vs, ps, os = decode(strides)
    tiles = tl.cdiv(N, LANES // M)
    work = tl.program_id(0) // tiles
    n, i, base, live = block_lanes(tl.program_id(0) % tiles, N, M, LANES)
    row, sequence, first, start, end, last = span(None, work, T, segment, segments)
    g += row * gs[0] + start * gs[1] + n * gs[2] + i * gs[3]
    v += row * vs[0] + start * vs[1] + n * vs[2] + i * vs[3]
    COUNT: tl.constexpr = M if REVERSE else M + 1
    columns, gathered = (), _zeros(M, LANES)
    for c in tl.static_range(COUNT):
        columns = columns + (tl.where(i == c, 1.0, 0.0),)
    s = tl.arange(0, STEPS)[:, None]
    asked = portable_block.ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, STEPS):
        x = floats(asked, COLUMNS + 1)
        g, v = g + STEPS * gs[1], v + STEPS * vs[1]
        asked = portable_block.ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - STEPS), COLUMNS)
        p, inverse = row_weights(x[:COLUMNS], CODE, COLUMNS, FAST)
        a = unstack(x[COLUMNS] if REVERSE or COLUMNS == M else x[COLUMNS] * p[M], STEPS, LANES)
        p = unstack_all(p, M, STEPS, LANES)
        for k in tl.static_range(STEPS):
            moved = _move_block(columns, p, k, base, M, COUNT)
            if REVERSE:
                gathered = choose(t + k < end, _add_products(gathered, moved, a[k], M), gathered, M)
            else:
                moved = moved[:M] + (moved[M] + a[k],)
            columns = choose(t + k < end, moved, columns, COUNT)
    products += work.to(tl.int64) * ps[0] + n * ps[1] + i * ps[2]
    for c in tl.static_range(M):
        tl.store(products + c * ps[3], columns[c], mask=live)
    offset = _sum_rows(gathered, i, base, M) if REVERSE else columns[M]
    tl.store(offsets + work.to(tl.int64) * os[0] + n * os[1] + i * os[2], offset, mask=live)


@triton.jit
def _unit_windows(M: tl.constexpr, COUNT: tl.constexpr, LANES: tl.constexpr):
    """The columns of the identity, as windows of M numbers; column M, the offset, is zeros."""
    zeros, one = _zeros(M, LANES), tl.full([LANES], 1.0, tl.float32)
    windows = ()
    for c in tl.static_range(COUNT):
        windows = windows + (zeros[:c] + (one,) + zeros[c + 1 :] if c < M else zeros,)
    return windows


@kernel
def order_products(
    g, v, products, offsets, strides, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, REVERSE: tl.constexpr,
    STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """H-LRU; a lane owns a channel and all columns of its P, each of them a window."""
    gs, vs, ps, os = decode(strides)
    tiles = tl.cdiv(N, LANES)
    work = tl.program_id(0) // tiles
    n = (tl.program_id(0) % tiles).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = n < N
    row, sequence, first, start, end, last = span(None, work, T, segment, segments)
    g += row * gs[0] + start * gs[1] + n * gs[2]
    v += row * vs[0] + start * vs[1] + n * vs[2]
    COUNT: tl.constexpr = M if REVERSE else M + 1
    columns, gathered, none = _unit_windows(M, COUNT, LANES), _zeros(M, LANES), tl.zeros([LANES], tl.float32)
    s = tl.arange(0, STEPS)[:, None]
    asked = portable_order.ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), M)
    for t in range(start, end, STEPS):
        x = floats(asked, M + 2)
        g, v = g + STEPS * gs[1], v + STEPS * vs[1]
        asked = portable_order.ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - STEPS), M)
        p, inverse = row_weights(x[: M + 1], CODE, M + 1, FAST)
        a = unstack(x[M + 1] if REVERSE else x[M + 1] * p[M], STEPS, LANES)
        p = unstack_all(p, M, STEPS, LANES)
        for k in tl.static_range(STEPS):
            moved, newest = (), ()
            for c in tl.static_range(COUNT):
                window = portable_order.step_window(columns[c], a[k] if c == M else none, p, k, M)
                moved = moved + (choose(t + k < end, window, columns[c], M),)
                newest = newest + (window[0],)
            columns = moved
            if REVERSE:
                gathered = choose(t + k < end, _add_products(gathered, newest, a[k], M), gathered, M)
    products += work.to(tl.int64) * ps[0] + n * ps[1]
    offsets += work.to(tl.int64) * os[0] + n * os[1]
    for q in tl.static_range(M):
        for c in tl.static_range(M):
            tl.store(products + q * ps[2] + c * ps[3], columns[c][q], mask=live)
        tl.store(offsets + q * os[2], gathered[q] if REVERSE else columns[M][q], mask=live)


@kernel
def ring_products(
    g, v, products, offsets, strides, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, REVERSE: tl.constexpr, SIZE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The same for higher orders, as in `ring_forward`: a program moves one column, and reads all gates for it."""
    gs, vs, ps, os = decode(strides)
    tiles, count = tl.cdiv(N, LANES), M if REVERSE else M + 1
    work, column = tl.program_id(0) // tiles // count, tl.program_id(0) // tiles % count
    n = (tl.program_id(0) % tiles).to(tl.int64) * LANES + tl.arange(0, LANES)
    row, sequence, first, start, end, last = span(None, work, T, segment, segments)
    c = tl.arange(0, SIZE)[:, None]
    live = n < N
    inside = live[None, :] & (c < M)
    g += row * gs[0] + n * gs[2]
    v += row * vs[0] + n * vs[2]
    window = tl.where(inside & (portable_ring.lag(start * 0, c, M) == column), 1.0, 0.0)
    gathered = tl.zeros([LANES], tl.float32)
    asked = portable_ring.ask_rows(
        g, gs, v, vs, start, start, c, inside & (start < end), live & (start < end), M
    )
    for t in range(start, end):
        x, gate, value = asked[0].to(tl.float32), asked[1].to(tl.float32), asked[2].to(tl.float32)
        more = t + 1 < end
        asked = portable_ring.ask_rows(g, gs, v, vs, t + 1, start, c, inside & more, live & more, M)
        p, p_last, inverse, shift = tile_weights(x, gate, inside, CODE, M + 1)
        h = tl.sum(p * window, 0)
        if REVERSE:
            gathered += h * value
        else:
            h = tl.where(column == M, h + p_last * value, h)
        window = tl.where(c == (t - start) % M, h[None, :], window)
    products += work.to(tl.int64) * ps[0] + n * ps[1] + column * ps[3]
    offsets += work.to(tl.int64) * os[0] + n * os[1]
    place = portable_ring.lag(end - start, c, M)
    tl.store(products[None, :] + place * ps[2], window, mask=inside & (column < M))
    if REVERSE:
        tl.store(offsets + column * os[2], gathered, mask=live)
    else:
        tl.store(offsets[None, :] + place * os[2], window, mask=inside & (column == M))
