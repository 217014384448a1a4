"""BD-LRU and affine recurrences of block size up to 16 and H-LRU of order up to 32, in plain Triton.

A program is one warp. A lane owns one row of one block and carries its component of the state, which the lanes of a
block tell each other; or (HLRU) one channel, and carries its last M states, newest first. Time goes in tiles of
BLOCK_T: the numbers of the next tile are loaded before this one is walked, and the rows of gates are normalised
(backward: differentiated) for a whole tile at once.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import row_weights, weights_back
from statemix.ops.triton.portable import common


@triton.jit
def choose(condition, new, old):
    """tl.where, one by one."""
    chosen = ()
    for k in tl.static_range(len(new)):
        chosen = chosen + (tl.where(condition, new[k], old[k]),)
    return chosen


@triton.jit
def step(state, a, p, k: tl.constexpr, base, CFG: tl.constexpr):
    """What a lane carries after step k of a tile: p[j][k] weighs component j (HLRU: the state j + 1 steps ago), a comes
    in."""
    M: tl.constexpr = CFG.M
    h = a
    for j in tl.static_range(M):
        h += p[j][k] * (state[j] if CFG.HLRU else tl.gather(state[0], base + j, 0))
    return (h,) + state[: M - 1] if CFG.HLRU else (h,)


@triton.jit
def _places(at, stride, live, CFG: tl.constexpr):
    """Where the M states of a window lie, [SIZE, LANES], and which of them are real."""
    k = tl.arange(0, CFG.SIZE)[:, None].to(tl.int64)
    return at[None, :] + k * stride, live[None, :] & (k < CFG.M)


@triton.jit
def _load_state(at, stride, live, CFG: tl.constexpr):
    """What lanes carry, float32, from a state [S, N, M]."""
    if CFG.HLRU:
        place, mask = _places(at, stride, live, CFG)
        return common.unstack(tl.load(place, mask=mask, other=0.0), CFG.SIZE, CFG.LANES)[: CFG.M]
    else:
        return (tl.load(at, mask=live, other=0.0),)


@triton.jit
def _store_state(at, stride, state, live, CFG: tl.constexpr):
    """The way back."""
    M: tl.constexpr = CFG.M
    SIZE: tl.constexpr = CFG.SIZE
    if CFG.HLRU:
        place, mask = _places(at, stride, live, CFG)
        for _ in tl.static_range(M, SIZE):
            state = state + (state[0],)
        common.store(place, common.stack(state, SIZE, CFG.LANES), mask)
    else:
        common.store(at, state[0], live)


@common.kernel
def small_forward(
    g, v, initial, states, final, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """States and final states; `strides` are those of the tensors. One program: a sequence or chunk, some lanes."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ins, ss, fs = common.decode(strides)
    work, n, i, base, live = common.own_lanes(N, CFG)
    row, sequence, first, start, end, last = common.span(bounds, work, T, chunk, num_chunks)
    g, v, states = common.rows_at((g, v, states), (gs[:4], vs, ss), row, start, n, i)
    state = _load_state(common.state_at(initial, ins, work.to(tl.int64), n, i), ins[2], live, CFG)
    s = tl.arange(0, BLOCK_T)[:, None]
    loaded = common.load_rows(g, gs, v, vs, s, live[None, :] & (s < end - start), COLUMNS)
    for t in range(start, end, BLOCK_T):
        x = common.floats(loaded, COLUMNS + 1)
        g, v = g + BLOCK_T * gs[1], v + BLOCK_T * vs[1]
        loaded = common.load_rows(g, gs, v, vs, s, live[None, :] & (s < end - t - BLOCK_T), COLUMNS)
        p = row_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
        a = common.unstack(x[COLUMNS] * p[M] if COLUMNS > M else x[COLUMNS], BLOCK_T, LANES)
        p = common.unstack_all(p, M, BLOCK_T, LANES)
        walked = ()
        for k in tl.static_range(BLOCK_T):
            state = choose(t + k < end, step(state, a[k], p, k, base, CFG), state)
            walked = walked + (state[0],)
        common.store(
            states[None, :] + s * ss[1], common.stack(walked, BLOCK_T, LANES), live[None, :] & (s < end - t)
        )
        states += BLOCK_T * ss[1]
    _store_state(common.state_at(final, fs, sequence, n, i), fs[2], state, live & (end == last), CFG)


@triton.jit
def _load_states(states, ss, initial, ins, s, age, mask, CFG: tl.constexpr):
    """The states s steps before the one at `states`; of an HLRU two loads of which one is real.

    age [BLOCK_T, 1] is the step of such a state in its sequence; those below 0 lie in the initial window, -1 first.
    """
    newer = tl.load(states[None, :] - s * ss[1], mask=mask & (age >= 0), other=0.0)
    if CFG.HLRU:
        inside = mask & (age < 0) & (age >= -CFG.M)
        return newer, tl.load(initial[None, :] - (age + 1) * ins[2], mask=inside, other=0.0)
    else:
        return (newer,)


@triton.jit
def _load_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left, age, live, CFG: tl.constexpr):
    """Rows of gates, values, gradients and states of the steps s back, raw; `left` steps are left."""
    mask = live[None, :] & (s < left)
    gradient = tl.load(grad[None, :] - s * ds[1], mask=mask, other=0.0)
    state = _load_states(states, ss, initial, ins, s, age - s, mask, CFG)
    return common.load_rows(g, gs, v, vs, -s, mask, CFG.COLUMNS) + (gradient,) + state


@triton.jit
def _lagged(w, past, s, base, CFG: tl.constexpr):
    """What the transition gates of a tile multiply, and w as the next tile needs it."""
    M: tl.constexpr = CFG.M
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    u = ()
    if CFG.HLRU:
        w = w + common.unstack(past, BLOCK_T, CFG.LANES)
        for j in tl.static_range(M):
            u = u + (common.stack(w[j : j + BLOCK_T], BLOCK_T, CFG.LANES),)
        w = w[BLOCK_T:]
    else:
        for j in tl.static_range(M):
            u = u + (tl.gather(past, (base + j)[None, :] + s * 0, 1),)
    return u, w


@triton.jit
def _step_back(carry, adjoint, p, k: tl.constexpr, i, base, CFG: tl.constexpr):
    """What step k of a tile leaves to the state, or the states, before it: the transposed transition.

    Rows of blocks are rotated by their i, so that what a lane sends lies under the same entry, in the same register, in
    all.
    """
    M: tl.constexpr = CFG.M
    if CFG.HLRU:
        left, spread = carry[1:] + (adjoint * 0.0,), ()
        for j in tl.static_range(M):
            spread = spread + (left[j] + p[j][k] * adjoint,)
        return spread
    else:
        total = adjoint * 0.0
        for q in tl.static_range(M):
            total += tl.gather(p[q][k] * adjoint, base + tl.where(i + q < M, i + q, i + q - M), 0)
        return (total,)


@common.kernel
def small_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The reverse pass of `small_forward`: h is computed again from the states before, the adjoints are carried.

    Of an HLRU, carry[k] is the adjoint, gathered so far, of the state k steps before the one in hand, and w holds the M
    states before the newest step of a tile, newest first; else w is the component that the sequence begins with. `age`
    is the step, in its sequence, of the next state to be read.
    """
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    LANES: tl.constexpr = CFG.LANES
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = common.decode(strides)
    work, n, i, base, live = common.own_lanes(N, CFG)
    row, sequence, first, start, end, last = common.span(bounds, work, T, chunk, num_chunks)
    g, v, grad, dg, dv = common.rows_at(
        (g, v, grad, dg, dv), (gs[:4], vs, ds, dgs[:4], dvs), row, end - 1, n, i
    )
    (states,) = common.rows_at((states,), (ss,), row, end - 2, n, i)
    initial = common.state_at(initial, ins, sequence, n, i)
    carry = _load_state(common.state_at(dfinal, dfs, work.to(tl.int64), n, i), dfs[2], live, CFG)
    component = i.to(tl.int32)
    age = end - 2 - first
    if CFG.HLRU:
        q = tl.arange(0, CFG.SIZE)[:, None]
        w = _load_states(states, ss, initial, ins, q, age - q, live[None, :] & (end > start), CFG)
        w = common.unstack(tl.where(age - q >= 0, w[0].to(tl.float32), w[1]), CFG.SIZE, LANES)[:M]
        states, age = states - M * ss[1], age - M
    else:
        w = _load_state(initial, ins[2], live, CFG)
    s = tl.arange(0, BLOCK_T)[:, None]  # steps back from the last one in hand
    loaded = _load_back(g, gs, v, vs, grad, ds, states, ss, initial, ins, s, end - start, age, live, CFG)
    for done in range(0, end - start, BLOCK_T):
        left = end - start - done
        x = common.floats(loaded, len(loaded))
        past = tl.where(age - s >= 0, x[COLUMNS + 2], x[COLUMNS + 3] if CFG.HLRU else w[0][None, :])
        g, v, grad = g - BLOCK_T * gs[1], v - BLOCK_T * vs[1], grad - BLOCK_T * ds[1]
        states, age = states - BLOCK_T * ss[1], age - BLOCK_T
        loaded = _load_back(
            g, gs, v, vs, grad, ds, states, ss, initial, ins, s, left - BLOCK_T, age, live, CFG
        )
        value, gradient = x[COLUMNS], common.unstack(x[COLUMNS + 1], BLOCK_T, LANES)
        u, w = _lagged(w, past, s, base, CFG)
        slopes, soft = common.row_slopes(x, u + (value,), CFG)
        p_last, p = weights_back(x[:COLUMNS], soft, component[None, :], CFG.NORM, M, COLUMNS, CFG.HLRU)
        weights = common.unstack_all(p, M, BLOCK_T, LANES)
        adjoints = ()
        for k in tl.static_range(BLOCK_T):
            adjoint = gradient[k] + carry[0]
            adjoints = adjoints + (adjoint,)
            carry = choose(k < left, _step_back(carry, adjoint, weights, k, component, base, CFG), carry)
        adjoint = common.stack(adjoints, BLOCK_T, LANES)
        mask = live[None, :] & (s < left)
        for j in tl.static_range(COLUMNS):
            common.store(dg[None, :] - s * dgs[1] + j * dgs[4], adjoint * slopes[j], mask)
        common.store(dv[None, :] - s * dvs[1], adjoint * p_last if COLUMNS > M else adjoint, mask)
        dg, dv = dg - BLOCK_T * dgs[1], dv - BLOCK_T * dvs[1]
    _store_state(common.state_at(dinitial, dis, sequence, n, i), dis[2], carry, live & (start == first), CFG)
