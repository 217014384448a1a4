"""H-LRU of order up to 32 in plain Triton: a lane owns one channel and keeps its last M states in registers.

Time goes in tiles, as in `portable_block`.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.portable_parts import (
    choose,
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
from statemix.ops.triton.rows import row_weights


@triton.jit
def ask_rows(g, gs, v, vs, s, mask, M: tl.constexpr):
    """Rows of gates and values of the steps s [STEPS, 1] from g and v [LANES] on, raw."""
    asked = load_columns(g[None, :] + s * gs[1], gs[3], mask, M + 1)
    return asked + (tl.load(v[None, :] + s * vs[1], mask=mask, other=0.0),)


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
def order_forward(
    g, v, initial, states, final, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """States and final windows; a tensor is followed by its strides."""
    gs, vs, ins, ss, fs = decode(strides)
    tiles = tl.cdiv(N, LANES)
    work = tl.program_id(0) // tiles
    n = (tl.program_id(0) % tiles).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = n < N
    SIZE: tl.constexpr = triton.next_power_of_2(M)
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    g += row * gs[0] + start * gs[1] + n * gs[2]
    v += row * vs[0] + start * vs[1] + n * vs[2]
    states += row * ss[0] + start * ss[1] + n * ss[2]
    window = load_window(initial + work.to(tl.int64) * ins[0] + n * ins[1], ins[2], live, M, SIZE, LANES)
    s = tl.arange(0, STEPS)[:, None]
    asked = ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), M)
    for t in range(start, end, STEPS):
        x = floats(asked, M + 2)
        g, v = g + STEPS * gs[1], v + STEPS * vs[1]
        asked = ask_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - STEPS), M)
        p, inverse = row_weights(x[: M + 1], CODE, M + 1, FAST)
        a = unstack(x[M + 1] * p[M], STEPS, LANES)
        p = unstack_all(p, M, STEPS, LANES)
        walked = ()
        for k in tl.static_range(STEPS):
            window = choose(t + k < end, step_window(window, a[k], p, k, M), window, M)
            walked = walked + (window[0],)
        store(states[None, :] + s * ss[1], stack(walked, STEPS, LANES), live[None, :] & (s < end - t))
        states += STEPS * ss[1]
    final += sequence * fs[0] + n * fs[1]
    store_window(final, fs[2], window, live & (end == last), M, SIZE, LANES)


@triton.jit
def _ask_states(states, ss, initial, ins, s, age, mask, M: tl.constexpr):
    """The states s steps before the one at `states`, as two loads of which one is real.

    age [STEPS, 1] is the step of such a state in its sequence; those below 0 lie in the initial window, -1 first.
    """
    newer = tl.load(states[None, :] - s * ss[1], mask=mask & (age >= 0), other=0.0)
    older = tl.load(initial[None, :] - (age + 1) * ins[2], mask=mask & (age < 0) & (age >= -M), other=0.0)
    return newer, older


@triton.jit
def _ask_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left, age, live, M: tl.constexpr):
    """Gates, values, gradients of the steps s back, and the states M + 1 steps before those, raw."""
    mask = live[None, :] & (s < left)
    gradient = tl.load(grad[None, :] - s * ds[1], mask=mask, other=0.0)
    state = _ask_states(states, ss, initial, ins, s, age - s, mask, M)
    return ask_rows(g, gs, v, vs, -s, mask, M) + (gradient,) + state


@triton.jit
def _step_back(carry, adjoint, p, k: tl.constexpr, M: tl.constexpr):
    """What step k of a tile leaves to the states before it."""
    left = carry[1:] + (adjoint * 0.0,)
    spread = ()
    for j in tl.static_range(M):
        spread = spread + (left[j] + p[j][k] * adjoint,)
    return spread


@kernel
def order_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """The reverse pass of `order_forward`: h is computed again from the states before, the adjoints are carried.

    carry[k] is the adjoint, gathered so far, of the state k steps before the one in hand; w holds the M states
    before the newest step of a tile, newest first, and `age` is the step of the state before all those.
    """
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    SIZE: tl.constexpr = triton.next_power_of_2(M)
    tiles = tl.cdiv(N, LANES)
    work = tl.program_id(0) // tiles
    n = (tl.program_id(0) % tiles).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = n < N
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    g += row * gs[0] + (end - 1) * gs[1] + n * gs[2]
    v += row * vs[0] + (end - 1) * vs[1] + n * vs[2]
    states += row * ss[0] + (end - 2) * ss[1] + n * ss[2]
    initial += sequence * ins[0] + n * ins[1]
    grad += row * ds[0] + (end - 1) * ds[1] + n * ds[2]
    dg += row * dgs[0] + (end - 1) * dgs[1] + n * dgs[2]
    dv += row * dvs[0] + (end - 1) * dvs[1] + n * dvs[2]
    carry = load_window(dfinal + work.to(tl.int64) * dfs[0] + n * dfs[1], dfs[2], live, M, SIZE, LANES)
    s, k = tl.arange(0, STEPS)[:, None], tl.arange(0, SIZE)[:, None]
    age = end - 2 - first
    newer, older = _ask_states(states, ss, initial, ins, k, age - k, live[None, :] & (end > start), M)
    w = unstack(tl.where(age - k >= 0, newer.to(tl.float32), older), SIZE, LANES)[:M]
    states, age = states - M * ss[1], age - M
    asked = _ask_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, end - start, age, live, M)
    for done in range(0, end - start, STEPS):
        left = end - start - done
        x = floats(asked, M + 5)
        w = w + unstack(tl.where(age - s >= 0, x[M + 3], x[M + 4]), STEPS, LANES)
        g, v, grad = g - STEPS * gs[1], v - STEPS * vs[1], grad - STEPS * ds[1]
        states, age = states - STEPS * ss[1], age - STEPS
        asked = _ask_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left - STEPS, age, live, M)
        u = ()
        for j in tl.static_range(M):
            u = u + (stack(w[j : j + STEPS], STEPS, LANES),)
        w = w[STEPS:]
        p, inverse = row_weights(x[: M + 1], CODE, M + 1, FAST)
        h = x[M + 1] * p[M]
        for j in tl.static_range(M):
            h += p[j] * u[j]
        slopes = row_slopes(x, p, inverse, u + (x[M + 1],), h, CODE, M + 1)
        gradient, weights = unstack(x[M + 2], STEPS, LANES), unstack_all(p, M, STEPS, LANES)
        adjoints = ()
        for q in tl.static_range(STEPS):
            adjoint = gradient[q] + carry[0]
            adjoints = adjoints + (adjoint,)
            carry = choose(q < left, _step_back(carry, adjoint, weights, q, M), carry, M)
        adjoint = stack(adjoints, STEPS, LANES)
        mask = live[None, :] & (s < left)
        for j in tl.static_range(M + 1):
            store(dg[None, :] - s * dgs[1] + j * dgs[3], adjoint * slopes[j], mask)
        store(dv[None, :] - s * dvs[1], adjoint * p[M], mask)
        dg, dv = dg - STEPS * dgs[1], dv - STEPS * dvs[1]
    dinitial += sequence * dis[0] + n * dis[1]
    store_window(dinitial, dis[2], carry, live & (start == first), M, SIZE, LANES)
