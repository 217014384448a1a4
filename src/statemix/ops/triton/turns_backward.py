"""All recurrences on Hopper, backward: warps take turns in time (the reverse of `turns_forward`).

Tiles are counted from the end of a sequence. With lambda_t the adjoint of h_t, a turn walks lambda = dh + carry and the
next carry; the gates' gradients follow from lambda, the weights and the saved states (see `rows`) after the turn is
passed on. In BD-LRU lane i owns row i of A, but A^T lambda needs column j in lane j: rows are rotated by i beforehand,
so that register s of lane i holds A[i, (i - s) mod m] and every exchange is one gather of one register. In H-LRU the
carry is what the next m steps back still receive.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.rows import gate_gradient, rotate, row_shift, row_weights
from statemix.ops.triton.turns_common import (
    ALL,
    CORRECT,
    INTEGERS,
    WHOLE,
    fetch,
    gates_of,
    idle,
    lanes,
    load_states,
    load_steps,
    open_boards,
    pass_turn,
    reach,
    read,
    read_gates,
    rings,
    sequence,
    take_turn,
    tile,
)
from statemix.ops.triton.turns_steps import step_back


@gluon.jit
def _lagged(pasts, u: tl.constexpr, first, m: tl.constexpr, ORDER: tl.constexpr):
    """The m numbers that step u's transition gates multiply."""
    lagged = ()
    for j in tl.static_range(m):
        lagged = lagged + (
            (pasts[u + j] if ORDER else (pasts[u] if m == 1 else tl.gather(pasts[u], first + j, 2))),
        )
    return lagged


@gluon.jit
def _pasts(stored, initial, channel, ok, t0, lower, ROWS: tl.constexpr, K: tl.constexpr):
    """States t0 - 1, t0 - 2, …: ROWS of them; before the start of the row they come from the carried state."""
    pasts = ()
    for r in tl.static_range(ROWS):
        before = lower - (t0 - 1 - r)  # 1 for the newest carried state
        carried = ok & (before > 0) & (before <= K)
        at = initial + channel * K + before - 1
        pasts = pasts + (tl.load(at, mask=carried, other=stored[r].to(tl.float32)),)
    return pasts


@gluon.jit
def _fetch(smem, slot, inputs, at, steps, steps_h, plane, start, lower, inside, inside_h, C: tl.constexpr):
    """One tile of gates, values and gradients of states, and of the states one step earlier."""
    g, v, states, grads = inputs
    g_at, v_at, d_at, h_at = at
    mask = inside & (steps >= start)
    fetch(smem, slot, g + g_at, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem[C].index(slot), v + v_at, mask=mask)
    async_copy.async_copy_global_to_shared(smem[C + 1].index(slot), grads + d_at, mask=mask)
    async_copy.async_copy_global_to_shared(
        smem[C + 2].index(slot), states + h_at, mask=inside_h & (steps_h > lower)
    )
    async_copy.commit_group()


@gluon.jit
def _load(
    pointers, ok, t0, start, lower, U: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr, H: tl.constexpr
):
    """The same straight into registers: U steps of gates and values, of gradients, and ROWS earlier states."""
    g, v, states, grads = pointers
    left = t0 - start + 1
    return (
        load_steps(g, v, ok, left, U, C, H, -1),
        load_states(grads, ok, left, U, H),
        load_states(states, ok, t0 - lower, ROWS, H),
    )


@gluon.jit
def _read_states(ring, slot, ROWS: tl.constexpr, G: tl.constexpr):
    rows = ()
    for r in tl.static_range(ROWS):
        rows = rows + (read(ring, slot, r, G),)
    return rows


@gluon.jit
def _gradients(raw, p, inverse, adjoint, value, lagged, out, plane: tl.constexpr, mask, m: tl.constexpr,
               CODE: tl.constexpr, GATED: tl.constexpr):  # fmt: skip
    """Store the gradients of one step's gates and return that of its value."""
    C: tl.constexpr = m + 1 if GATED else m
    h = p[m] * value if GATED else value
    for j in tl.static_range(m):
        h = tl.fma(p[j], lagged[j], h)
    shift = row_shift(raw, CODE, C)
    for j in tl.static_range(C):
        d = gate_gradient(raw[j], p[j], inverse, shift, adjoint, lagged[j] if j < m else value, h, CODE)
        tl.store(out + j * plane, d.to(out.dtype.element_ty), mask=mask)
    return p[m] * adjoint if GATED else adjoint


@gluon.jit
def _worker(smem, boards, turns, inputs, outputs, start, end, lower, stop, c0, strides, H: tl.constexpr,
            m: tl.constexpr, LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr,
            ME: tl.constexpr, W: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr,
            R: tl.constexpr):  # fmt: skip
    g, v, states, grads, initial = inputs
    d_gates, d_values, d_initial = outputs
    gt, gj, vt = strides
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    DIRECT: tl.constexpr = VEC == 0
    channel, ok, first, own = lanes(c0, H, m, LANES, G)
    t0 = end - 1 - ME * U
    states += (t0 - 1).to(tl.int64) * H
    grads += t0.to(tl.int64) * H
    gates_out = d_gates + t0.to(tl.int64) * (H * C) + channel
    values_out = d_values + t0.to(tl.int64) * H + channel
    if DIRECT:
        g += t0.to(tl.int64) * (C * H) + channel
        v += t0.to(tl.int64) * H + channel
        states += channel
        grads += channel
        pending = _load((g, v, states, grads), ok, t0, start, lower, U, U + K - 1, C, H)
    else:
        when, source, inside = tile(c0, H, U, LANES, G, VEC)
        when_h, source_h, inside_h = tile(c0, H, R, LANES, G, VEC)
        at = (
            source - when * (gt * VEC),
            source - when * (vt * VEC),
            source - when * H,
            source_h - when_h * H,
        )
        plane = gj.to(tl.int64) * VEC
        dg, dv = gt.to(tl.int64) * (U * W * VEC), vt.to(tl.int64) * (U * W * VEC)
        g += t0.to(tl.int64) * gt * VEC
        v += t0.to(tl.int64) * vt * VEC
        ahead = t0
        for k in tl.static_range(S - 1):
            _fetch(smem, k, (g, v, states, grads), at, ahead - when, ahead - when_h, plane, start, lower,
                   inside, inside_h, C)  # fmt: skip
            g -= dg
            v -= dv
            states -= U * W * H
            grads -= U * W * H
            ahead -= U * W
    for k in range(tl.cdiv(end - start, U * W)):
        states -= U * W * H
        grads -= U * W * H
        if DIRECT:
            g -= U * W * C * H
            v -= U * W * H
            numbers, ups, stored = pending
            pending = _load((g, v, states, grads), ok, t0 - U * W, start, lower, U, U + K - 1, C, H)
        else:
            async_copy.wait_group(S - 2)
            newer = (g, v, states + U * W * H, grads + U * W * H)
            _fetch(smem, (k + S - 1) % S, newer, at, ahead - when, ahead - when_h, plane, start, lower,
                   inside, inside_h, C)  # fmt: skip
            g -= dg
            v -= dv
            ahead -= U * W
            stored = _read_states(smem[C + 2], k % S, U + K - 1, G)
            ups = _read_states(smem[C + 1], k % S, U, G)
        weights, inverses, ways, adjoints = (), (), (), ()
        for u in tl.static_range(U):
            raw = gates_of(numbers[u], C) if DIRECT else read_gates(smem, k % S, u, C, G)
            p, inverse = row_weights(raw, CODE, C, True)
            weights = weights + (p,)
            inverses = inverses + (inverse,)
            ways = ways + ((p if ORDER else rotate(p, own, m)),)
        pasts = _pasts(stored, initial, channel, ok, t0, lower, U + K - 1, K)
        begun = take_turn(boards[ME], turns[ME], k, ME, K, G)
        carry = begun
        for u in tl.static_range(U):
            adjoints = adjoints + (carry[0] + ups[u].to(tl.float32),)
            carry = step_back(ways[u], adjoints[u], carry, first, own, m, ORDER)
        pass_turn(boards[(ME + 1) % W], turns[(ME + 1) % W], carry, K, G)
        if (t0 >= start) & (t0 - U < stop):  # the step is here: walk again, looking at every carry
            carry = begun
            for u in tl.static_range(U):
                carry = step_back(ways[u], adjoints[u], carry, first, own, m, ORDER)
                for i in tl.static_range(K):
                    tl.store(d_initial + channel * K + i, carry[i], mask=ok & (t0 - u == stop))
        for u in tl.static_range(U):
            raw = gates_of(numbers[u], C) if DIRECT else read_gates(smem, k % S, u, C, G)
            value = numbers[u][C].to(tl.float32) if DIRECT else read(smem[C], k % S, u, G)
            mask = ok & (t0 - u >= start)
            d = _gradients(raw, weights[u], inverses[u], adjoints[u], value, _lagged(pasts, u, first, m, ORDER),
                           gates_out - u * H * C, H, mask, m, CODE, GATED)  # fmt: skip
            tl.store(values_out - u * H, d.to(d_values.dtype.element_ty), mask=mask)
        gates_out -= U * W * H * C
        values_out -= U * W * H
        t0 -= U * W


@gluon.jit(do_not_specialize=INTEGERS)
def backward(gates, values, states, initial, grads, grad_final, d_gates, d_values, d_initial, bounds, horizons, T,
             segment, segments, groups, gb, gt, gj, vb, vt, H: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr,
             CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr, PACKED: tl.constexpr, W: tl.constexpr,
             G: tl.constexpr, U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr, WARPS: tl.constexpr,
             REGS: tl.constexpr, R: tl.constexpr, PHASE: tl.constexpr):  # fmt: skip
    """One program: G x LANES lanes of one sequence. Strides of gates and values count units of VEC numbers (VEC
    = 0: the fast format, number by number); R is the
    rows of states that a tile of U steps reads, rounded up to a power of two."""
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (G * LANES)
    row, start, end = sequence(bounds, s, T, segment, segments, PACKED)
    place = gl.arange(0, G * 32, layout=gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    channel = c0 + place // 32 * LANES + place % 32
    ok = (place % 32 < LANES) & (channel < H)
    # Where the row starts, and whose state it begins with.
    lower, owner = (start, s) if PACKED else (0, s // segments)
    mine, whose = s.to(tl.int64) * H * K, owner.to(tl.int64) * H * K
    # The step before which the carry is asked for, and where it goes.
    stop, out = (lower, whose) if PHASE == ALL else (start, mine)
    if PHASE == ALL:
        for i in tl.static_range(K):
            carried = tl.load(grad_final + mine + channel * K + i, mask=ok, other=0.0)
            tl.store(d_initial + out + channel * K + i, carried, mask=ok & (start >= end))
    else:
        here = reach(horizons + s.to(tl.int64) * H, grad_final + mine, channel, ok, PHASE, K)
        start = tl.maximum(start, end - here)
        if PHASE == CORRECT:
            stop = -WHOLE
    boards, turns = open_boards(grad_final + mine, channel, ok, W, G, K)
    jobs = ()
    for _ in tl.static_range(W):
        if VEC == 0:
            jobs = jobs + ((),)
        else:
            few = rings(gates.dtype.element_ty, C + 2, S, U * G * 32)
            jobs = jobs + (few + rings(gates.dtype.element_ty, 1, S, R * G * 32),)
    here = row * T * H
    if VEC == 0:
        gates += here * C
        values += here
    else:
        gates += row * gb * VEC
        values += row * vb * VEC
    inputs = (gates, values, states + here, grads + here, initial + whose)
    outputs = (d_gates + here * C, d_values + here, d_initial + out)
    strides = (gt, gj, vt)
    if W == 2:
        gl.warp_specialize([
            (idle, ()),
            (_worker, (jobs[0], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 0, W, G, U, S, VEC, R)),
            (_worker, (jobs[1], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 1, W, G, U, S, VEC, R)),
        ], WARPS, REGS)  # fmt: skip
    else:
        tl.static_assert(W == 4)
        gl.warp_specialize([
            (idle, ()),
            (_worker, (jobs[0], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 0, W, G, U, S, VEC, R)),
            (_worker, (jobs[1], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 1, W, G, U, S, VEC, R)),
            (_worker, (jobs[2], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 2, W, G, U, S, VEC, R)),
            (_worker, (jobs[3], boards, turns, inputs, outputs, start, end, lower, stop, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 3, W, G, U, S, VEC, R)),
        ], WARPS, REGS)  # fmt: skip
