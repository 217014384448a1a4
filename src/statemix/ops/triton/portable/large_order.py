"""H-LRU of higher order in plain Triton, any m up to 1024. A lane owns one channel.

The window is a ring along the first axis of a tile: when t steps are done since the start, entry c holds the newest
state of a step congruent to c modulo M. So nothing moves when a state comes in; what moves is which column of the
gates an entry meets.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import HARD
from statemix.ops.triton.portable.common import decode, floats, kernel, own_lanes, rows_at, span, store
from statemix.ops.triton.portable.large_block import hard_tile, load, tile_slopes, tile_weights


@triton.jit
def lag(steps, c, M: tl.constexpr):
    """The column of the gates that entry c meets after `steps` steps: its state is that many + 1 steps old."""
    place = (steps % M).to(tl.int32)
    return tl.where(c < place, place - 1 - c, place - 1 - c + M).to(tl.int64)


@triton.jit
def load_lagged(g, gs, v, vs, t, start, c, inside, live, M: tl.constexpr):
    """Gates, input gates and values of step t, raw."""
    at = g + t * gs[1]
    x = tl.load(at[None, :] + lag(t - start, c, M) * gs[4], mask=inside, other=0.0)
    gate = tl.load(at + gs[4] * M, mask=live, other=0.0)
    return x, gate, tl.load(v + t * vs[1], mask=live, other=0.0)


@kernel
def large_order_forward(
    g, v, initial, states, final, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """Arguments as for `small_order_forward`."""
    M: tl.constexpr = CFG.M
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs, ins, ss, fs = decode(strides)
    work, n, i, base, live = own_lanes(N, CFG)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    c = tl.arange(0, SIZE)[:, None]
    inside = live[None, :] & (c < M)
    g, v, states = rows_at((g, v, states), (gs[:4], vs, ss), row, 0, n, i)
    initial += work.to(tl.int64) * ins[0] + n * ins[1]
    window = load(initial[None, :] + lag(start * 0, c, M) * ins[2], inside)
    loaded = load_lagged(g, gs, v, vs, start, start, c, inside & (start < end), live & (start < end), M)
    for t in range(start, end):
        x, gate, value = floats(loaded, 3)
        more = t + 1 < end
        loaded = load_lagged(g, gs, v, vs, t + 1, start, c, inside & more, live & more, M)
        p, p_last = tile_weights(x, gate, lag(t - start, c, M), inside, CFG.NORM, M + 1)
        h = tl.sum(p * window, 0) + p_last * value
        store(states + t * ss[1], h, live)
        window = tl.where(c == (t - start) % M, h[None, :], window)
    final += sequence * fs[0] + n * fs[1]
    store(final[None, :] + lag(end - start, c, M) * fs[2], window, inside & (end == last))


@triton.jit
def _state(states, ss, initial, ins, t, first, mask):
    """The states of steps t; step first - 1 is the newest of the initial window."""
    newer = load(states + t * ss[1], mask & (t >= first))
    return newer + load(initial + (first - 1 - t) * ins[2], mask & (t < first))


@kernel
def large_order_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The reverse pass of `large_order_forward`: entry c of `carry` gathers the adjoint of the state that lay there."""
    M: tl.constexpr = CFG.M
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    work, n, i, base, live = own_lanes(N, CFG)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    c = tl.arange(0, SIZE)[:, None]
    inside = live[None, :] & (c < M)
    g, v, states = rows_at((g, v, states), (gs[:4], vs, ss), row, 0, n, i)
    initial += sequence * ins[0] + n * ins[1]
    grad, dg, dv = rows_at((grad, dg, dv), (ds, dgs[:4], dvs), row, 0, n, i)
    dfinal += work.to(tl.int64) * dfs[0] + n * dfs[1]
    carry = load(dfinal[None, :] + lag(end - start, c, M) * dfs[2], inside)
    full, some = inside & (end > start), live & (end > start)
    past = end - 2 - lag(end - 1 - start + M, c, M)
    u = _state(states[None, :], ss, initial[None, :], ins, past, first, full)
    loaded = load_lagged(g, gs, v, vs, end - 1, start, c, full, some, M)
    for done in range(0, end - start):
        t = end - 1 - done
        x, gate, value = floats(loaded, 3)
        loaded = load_lagged(g, gs, v, vs, t - 1, start, c, inside & (t > start), live & (t > start), M)
        entering = _state(states, ss, initial, ins, t - 1 - M, first, live & (t > start))
        gradient = load(grad + t * ds[1], live)
        slopes, slope, soft = tile_slopes(x, gate, inside, u, value, CFG.NORM, M + 1)
        newest = c == (t - start) % M
        adjoint = tl.sum(tl.where(newest, carry, 0.0), 0) + gradient
        p, p_last = soft
        if CFG.NORM < HARD:
            carry = tl.where(newest, 0.0, carry) + p * adjoint[None, :]
        at = dg + t * dgs[1]
        store(at[None, :] + lag(t - start, c, M) * dgs[4], adjoint[None, :] * slopes, inside)
        store(at + dgs[4] * M, adjoint * slope, live)
        if CFG.NORM >= HARD:  # once the slopes have left their registers
            p, p_last = hard_tile(x, gate, lag(t - start, c, M), inside, CFG.NORM)
            carry = tl.where(newest, 0.0, carry) + p * adjoint[None, :]
        store(dv + t * dvs[1], adjoint * p_last, live)
        u = tl.where(c == (t - 1 - start + M) % M, entering[None, :], u)
    dinitial += sequence * dis[0] + n * dis[1]
    store(dinitial[None, :] + lag(start * 0, c, M) * dis[2], carry, inside & (start == first))
