"""What a chunk of time does to the state it begins with: P and an offset. Chunks are walked forwards, whichever way the
recurrence runs.

Backward, the adjoint that leaves a chunk's start is the sum over its steps t of P_t transposed times the gradient
of h_t, with P_t the product up to step t: it is gathered beside the product, without a reverse walk.

Of the results products [B K, N, M, M] and offsets [B K, N, M] are contiguous; v is the gradient of the states if
REVERSE.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import row_weights
from statemix.ops.triton.portable import common
from statemix.ops.triton.portable.large_block import tile_weights
from statemix.ops.triton.portable.large_order import lag, load_lagged
from statemix.ops.triton.portable.small import choose, step


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (tl.zeros([LANES], tl.float32),)
    return zeros


@triton.jit
def _unit_states(i, COUNT: tl.constexpr, CFG: tl.constexpr):
    """The columns of the identity, as lanes carry them; column M, the offset, is zeros."""
    M: tl.constexpr = CFG.M
    zeros, one = _zeros(M, CFG.LANES), tl.full([CFG.LANES], 1.0, tl.float32)
    units = ()
    for c in tl.static_range(COUNT):
        if CFG.HLRU:
            units = units + (zeros[:c] + (one,) + zeros[c + 1 :] if c < M else zeros,)
        else:
            units = units + ((tl.where(i == c, 1.0, 0.0),),)
    return units


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


@common.kernel
def small_summary(
    g, v, products, offsets, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """A lane owns one row of P, or (HLRU) the whole P of a channel; `strides` are those of g and v.

    Forward, the offset is one more column, which starts at zero and takes in the values.
    """
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    COUNT: tl.constexpr = M if CFG.REVERSE else M + 1
    CARRIED: tl.constexpr = M if CFG.HLRU else 1
    gs, vs = common.decode(strides)
    work, n, i, base, live = common.own_lanes(N, CFG)
    row, sequence, first, start, end, last = common.span(None, work, T, chunk, num_chunks)
    g, v = common.rows_at((g, v), (gs[:4], vs), row, start, n, i)
    columns, gathered, none = _unit_states(i, COUNT, CFG), _zeros(M, LANES), tl.zeros([LANES], tl.float32)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = common.load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, BLOCK_T):
        x = common.floats(loaded, COLUMNS + 1)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = common.load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), COLUMNS)
        p = row_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
        a = common.unstack(x[COLUMNS] if CFG.REVERSE or COLUMNS == M else x[COLUMNS] * p[M], BLOCK_T, LANES)
        p = common.unstack_all(p, M, BLOCK_T, LANES)
        for k in tl.static_range(BLOCK_T):
            moved, newest = (), ()
            for c in tl.static_range(COUNT):
                state = step(columns[c], a[k] if c == M else none, p, k, base, CFG)
                moved = moved + (choose(t + k < end, state, columns[c]),)
                newest = newest + (state[0],)
            columns = moved
            if CFG.REVERSE:
                gathered = choose(t + k < end, _add_products(gathered, newest, a[k], M), gathered)
    mine = (work.to(tl.int64) * N + n) * M + i
    for q in tl.static_range(CARRIED):
        for c in tl.static_range(M):
            tl.store(products + (mine + q) * M + c, columns[c][q], mask=live)
        if not CFG.REVERSE:
            tl.store(offsets + mine + q, columns[M][q], mask=live)
        else:
            total = gathered[q] if CFG.HLRU else _sum_rows(gathered, i, base, M)
            tl.store(offsets + mine + q, total, mask=live)


@common.kernel
def large_order_summary(
    g, v, products, offsets, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The same for higher orders, as in `large_order_forward`: a program moves one column and reads all gates."""
    M: tl.constexpr = CFG.M
    LANES: tl.constexpr = CFG.LANES
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs = common.decode(strides)
    work, n, i, base, live = common.own_lanes(N, CFG)
    count: tl.constexpr = M if CFG.REVERSE else M + 1
    work, column = work // count, work % count
    row, sequence, first, start, end, last = common.span(None, work, T, chunk, num_chunks)
    c = tl.arange(0, SIZE)[:, None]
    inside = live[None, :] & (c < M)
    g, v = common.rows_at((g, v), (gs[:4], vs), row, 0, n, i)
    window = tl.where(inside & (lag(start * 0, c, M) == column), 1.0, 0.0)
    gathered = tl.zeros([LANES], tl.float32)
    loaded = load_lagged(g, gs, v, vs, start, start, c, inside & (start < end), live & (start < end), M)
    for t in range(start, end):
        x, gate, value = common.floats(loaded, 3)
        more = t + 1 < end
        loaded = load_lagged(g, gs, v, vs, t + 1, start, c, inside & more, live & more, M)
        p, p_last = tile_weights(x, gate, lag(t - start, c, M), inside, CFG.NORM, M + 1)
        h = tl.sum(p * window, 0)
        if CFG.REVERSE:
            gathered += h * value
        else:
            h = tl.where(column == M, h + p_last * value, h)
        window = tl.where(c == (t - start) % M, h[None, :], window)
    mine = (work.to(tl.int64) * N + n) * M
    place = lag(end - start, c, M)
    tl.store(products + (mine[None, :] + place) * M + column, window, mask=inside & (column < M))
    if CFG.REVERSE:
        tl.store(offsets + mine + column, gathered, mask=live)
    else:
        tl.store(offsets + mine[None, :] + place, window, mask=inside & (column == M))
