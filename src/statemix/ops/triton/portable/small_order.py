"""H-LRU of order up to 32 in plain Triton: a lane owns one channel and keeps its last M states in registers.

Time goes in tiles, as in `small_block`.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import row_weights
from statemix.ops.triton.portable.common import (
    channel_at,
    channel_program,
    choose,
    decode,
    floats,
    kernel,
    load_rows,
    row_slopes,
    span,
    stack,
    store,
    unstack,
    unstack_all,
)


@triton.jit
def step_window(window, a, p, k: tl.constexpr, M: tl.constexpr):
    """The window after step k of a tile: p[j][k] is the weight of the state j + 1 steps ago, a what comes in."""
    h = a
    for j in tl.static_range(M):
        h += p[j][k] * window[j]
    return (h,) + window[: M - 1]


@triton.jit
def _places(at, stride, live, M: tl.constexpr, SIZE: tl.constexpr):
    """Where the M states of a window lie, [SIZE, LANES], and which of them are real."""
    k = tl.arange(0, SIZE)[:, None].to(tl.int64)
    return at[None, :] + k * stride, live[None, :] & (k < M)


@triton.jit
def load_window(at, stride, live, M: tl.constexpr, SIZE: tl.constexpr, LANES: tl.constexpr):
    """A window of M float32 numbers in every lane, `stride` apart."""
    place, mask = _places(at, stride, live, M, SIZE)
    return unstack(tl.load(place, mask=mask, other=0.0), SIZE, LANES)[:M]


@triton.jit
def store_window(at, stride, window, live, M: tl.constexpr, SIZE: tl.constexpr, LANES: tl.constexpr):
    """The way back."""
    place, mask = _places(at, stride, live, M, SIZE)
    for _ in tl.static_range(M, SIZE):
        window = window + (window[0],)
    store(place, stack(window, SIZE, LANES), mask)


@kernel
def small_order_forward(
    g, v, initial, states, final, strides, bounds, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """States and final windows; a tensor is followed by its strides."""
    M: tl.constexpr = CFG.M
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ins, ss, fs = decode(strides)
    work, n, live = channel_program(N, CFG)
    SIZE: tl.constexpr = triton.next_power_of_2(M)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    g = channel_at(g, gs, row, start, n)
    v = channel_at(v, vs, row, start, n)
    states = channel_at(states, ss, row, start, n)
    window = load_window(initial + work.to(tl.int64) * ins[0] + n * ins[1], ins[2], live, M, SIZE, LANES)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), M + 1)
    for t in range(start, end, BLOCK_T):
        x = floats(loaded, M + 2)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), M + 1)
        p, inverse = row_weights(x[: M + 1], CFG.NORM, M + 1, CFG.FAST)
        a = unstack(x[M + 1] * p[M], BLOCK_T, LANES)
        p = unstack_all(p, M, BLOCK_T, LANES)
        walked = ()
        for k in tl.static_range(BLOCK_T):
            window = choose(t + k < end, step_window(window, a[k], p, k, M), window, M)
            walked = walked + (window[0],)
        store(states[None, :] + s * ss[1], stack(walked, BLOCK_T, LANES), live[None, :] & (s < end - t))
        states += BLOCK_T * ss[1]
    final += sequence * fs[0] + n * fs[1]
    store_window(final, fs[2], window, live & (end == last), M, SIZE, LANES)


@triton.jit
def _load_states(states, ss, initial, ins, s, age, mask, M: tl.constexpr):
    """The states s steps before the one at `states`, as two loads of which one is real.

    age [BLOCK_T, 1] is the step of such a state in its sequence; those below 0 lie in the initial window, -1 first.
    """
    newer = tl.load(states[None, :] - s * ss[1], mask=mask & (age >= 0), other=0.0)
    older = tl.load(initial[None, :] - (age + 1) * ins[2], mask=mask & (age < 0) & (age >= -M), other=0.0)
    return newer, older


@triton.jit
def _load_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left, age, live, M: tl.constexpr):
    """Gates, values, gradients of the steps s back, and the states M + 1 steps before those, raw."""
    mask = live[None, :] & (s < left)
    gradient = tl.load(grad[None, :] - s * ds[1], mask=mask, other=0.0)
    state = _load_states(states, ss, initial, ins, s, age - s, mask, M)
    return load_rows(g, gs, v, vs, -s, mask, M + 1) + (gradient,) + state


@triton.jit
def _step_back(carry, adjoint, p, k: tl.constexpr, M: tl.constexpr):
    """What step k of a tile leaves to the states before it."""
    left = carry[1:] + (adjoint * 0.0,)
    spread = ()
    for j in tl.static_range(M):
        spread = spread + (left[j] + p[j][k] * adjoint,)
    return spread


@kernel
def small_order_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, strides, bounds, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The reverse pass of `small_order_forward`: h is computed again from the states before, the adjoints are carried.

    carry[k] is the adjoint, gathered so far, of the state k steps before the one in hand; w holds the M states
    before the newest step of a tile, newest first, and `age` is the step of the state before all those.
    """
    M: tl.constexpr = CFG.M
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    SIZE: tl.constexpr = triton.next_power_of_2(M)
    work, n, live = channel_program(N, CFG)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    g = channel_at(g, gs, row, end - 1, n)
    v = channel_at(v, vs, row, end - 1, n)
    states = channel_at(states, ss, row, end - 2, n)
    initial += sequence * ins[0] + n * ins[1]
    grad = channel_at(grad, ds, row, end - 1, n)
    dg = channel_at(dg, dgs, row, end - 1, n)
    dv = channel_at(dv, dvs, row, end - 1, n)
    carry = load_window(dfinal + work.to(tl.int64) * dfs[0] + n * dfs[1], dfs[2], live, M, SIZE, LANES)
    s, k = tl.arange(0, BLOCK_T)[:, None], tl.arange(0, SIZE)[:, None]
    age = end - 2 - first
    newer, older = _load_states(states, ss, initial, ins, k, age - k, live[None, :] & (end > start), M)
    w = unstack(tl.where(age - k >= 0, newer.to(tl.float32), older), SIZE, LANES)[:M]
    states, age = states - M * ss[1], age - M
    loaded = _load_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, end - start, age, live, M)
    for done in range(0, end - start, BLOCK_T):
        left = end - start - done
        x = floats(loaded, M + 5)
        w = w + unstack(tl.where(age - s >= 0, x[M + 3], x[M + 4]), BLOCK_T, LANES)
        g, v, grad = g - BLOCK_T * gs[1], v - BLOCK_T * vs[1], grad - BLOCK_T * ds[1]
        states, age = states - BLOCK_T * ss[1], age - BLOCK_T
        loaded = _load_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left - BLOCK_T, age, live, M)
        u = ()
        for j in tl.static_range(M):
            u = u + (stack(w[j : j + BLOCK_T], BLOCK_T, LANES),)
        w = w[BLOCK_T:]
        p, inverse = row_weights(x[: M + 1], CFG.NORM, M + 1, CFG.FAST)
        h = x[M + 1] * p[M]
        for j in tl.static_range(M):
            h += p[j] * u[j]
        slopes = row_slopes(x, p, inverse, u + (x[M + 1],), h, CFG.NORM, M + 1)
        gradient, weights = unstack(x[M + 2], BLOCK_T, LANES), unstack_all(p, M, BLOCK_T, LANES)
        adjoints = ()
        for q in tl.static_range(BLOCK_T):
            adjoint = gradient[q] + carry[0]
            adjoints = adjoints + (adjoint,)
            carry = choose(q < left, _step_back(carry, adjoint, weights, q, M), carry, M)
        adjoint = stack(adjoints, BLOCK_T, LANES)
        mask = live[None, :] & (s < left)
        for j in tl.static_range(M + 1):
            store(dg[None, :] - s * dgs[1] + j * dgs[3], adjoint * slopes[j], mask)
        store(dv[None, :] - s * dvs[1], adjoint * p[M], mask)
        dg, dv = dg - BLOCK_T * dgs[1], dv - BLOCK_T * dvs[1]
    dinitial += sequence * dis[0] + n * dis[1]
    store_window(dinitial, dis[2], carry, live & (start == first), M, SIZE, LANES)
