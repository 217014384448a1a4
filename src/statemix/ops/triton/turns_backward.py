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
from statemix.ops.triton.turns_backward_tiles import (
    begin_copies,
    copy_tile,
    earlier,
    load_tile,
    of_lanes,
    read_rows,
    tile_rings,
)
from statemix.ops.triton.turns_common import (
    ALL,
    CORRECT,
    INTEGERS,
    WHOLE,
    gates_at,
    idle,
    lanes,
    open_boards,
    pass_turn,
    reach,
    sequence,
    take_turn,
    value_at,
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
def _gradients(raw, p, inverse, adjoint, value, lagged, out, plane: tl.constexpr, mask, sums, m: tl.constexpr,
               CODE: tl.constexpr, GATED: tl.constexpr, SUMMED: tl.constexpr):  # fmt: skip
    """Store the gradients of one step's gates; returns that of its value, and their sums with this step in them."""
    C: tl.constexpr = m + 1 if GATED else m
    h = p[m] * value if GATED else value
    for j in tl.static_range(m):
        h = tl.fma(p[j], lagged[j], h)
    shift = row_shift(raw, CODE, C)
    added = ()
    for j in tl.static_range(C):
        d = gate_gradient(raw[j], p[j], inverse, shift, adjoint, lagged[j] if j < m else value, h, CODE)
        tl.store(out + j * plane, d.to(out.dtype.element_ty), mask=mask)
        if SUMMED:
            added = added + (tl.where(mask, sums[j] + d, sums[j]),)
    return (p[m] * adjoint if GATED else adjoint), added


@gluon.jit
def _weigh(held, slot, own, m: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr,
           G: tl.constexpr, U: tl.constexpr, DIRECT: tl.constexpr):  # fmt: skip
    """The weights of a tile's steps, what their sums are divided by, and the weights as `step_back` takes them."""
    C: tl.constexpr = m + 1 if GATED else m
    weights, inverses, ways = (), (), ()
    for u in tl.static_range(U):
        p, inverse = row_weights(gates_at(held, slot, u, C, G, DIRECT), CODE, C, True)
        weights = weights + (p,)
        inverses = inverses + (inverse,)
        ways = ways + ((p if ORDER else rotate(p, own, m)),)
    return weights, inverses, ways


@gluon.jit
def _walk(ways, ups, carry, first, own, m: tl.constexpr, ORDER: tl.constexpr, U: tl.constexpr):
    """The adjoints of a tile's steps, and what lanes carry after them."""
    adjoints = ()
    for u in tl.static_range(U):
        adjoints = adjoints + (carry[0] + ups[u].to(tl.float32),)
        carry = step_back(ways[u], adjoints[u], carry, first, own, m, ORDER)
    return adjoints, carry


@gluon.jit
def _store_carry(out, ways, adjoints, carry, t0, stop, first, own, channel, ok, m: tl.constexpr,
                 ORDER: tl.constexpr, U: tl.constexpr):  # fmt: skip
    """Walk a tile from step t0 back again, looking at every carry, and store what lanes carry after step `stop`."""
    K: tl.constexpr = m if ORDER else 1
    for u in tl.static_range(U):
        carry = step_back(ways[u], adjoints[u], carry, first, own, m, ORDER)
        for i in tl.static_range(K):
            tl.store(out + channel * K + i, carry[i], mask=ok & (t0 - u == stop))


@gluon.jit
def _store_gradients(out, held, slot, weights, inverses, adjoints, pasts, t0, start, first, ok, sums,
                     H: tl.constexpr, GP: tl.constexpr, VP: tl.constexpr, m: tl.constexpr, CODE: tl.constexpr,
                     GATED: tl.constexpr, ORDER: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
                     DIRECT: tl.constexpr, SUMMED: tl.constexpr):  # fmt: skip
    """The gradients of the gates and values of a tile from step t0 back, as far as `start`; returns the sums of the
    gates' with this tile in them."""
    C: tl.constexpr = m + 1 if GATED else m
    gates_out, values_out = out
    for u in tl.static_range(U):
        raw = gates_at(held, slot, u, C, G, DIRECT)
        value = value_at(held, slot, u, C, G, DIRECT)
        mask = ok & (t0 - u >= start)
        d, sums = _gradients(raw, weights[u], inverses[u], adjoints[u], value, _lagged(pasts, u, first, m, ORDER),
                             gates_out - u * GP, H, mask, sums, m, CODE, GATED, SUMMED)  # fmt: skip
        tl.store(values_out - u * VP, d.to(values_out.dtype.element_ty), mask=mask)
    return sums


@gluon.jit
def _worker(smem, boards, turns, inputs, initial, outputs, start, end, lower, stop, c0, strides, H: tl.constexpr,
            GP: tl.constexpr, VP: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr, CODE: tl.constexpr,
            GATED: tl.constexpr, ORDER: tl.constexpr, ME: tl.constexpr, W: tl.constexpr, G: tl.constexpr,
            U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr, R: tl.constexpr, SUMMED: tl.constexpr):  # fmt: skip
    """The tiles ME, ME + W, … of a program's lanes, from the end."""
    d_gates, d_values, d_initial, d_sums = outputs
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    DIRECT: tl.constexpr = VEC == 0
    channel, ok, first, own = lanes(c0, H, m, LANES, G)
    t0 = end - 1 - ME * U
    if DIRECT:
        inputs = of_lanes(inputs, t0, channel, C, H)
        pending = load_tile(inputs, ok, t0, start, lower, U, U + K - 1, C, H)
    else:
        inputs, ahead, plan = begin_copies(smem, inputs, t0, start, lower, c0, strides,
                                           H, LANES, C, W, G, U, S, VEC, R)  # fmt: skip
    gates_out = d_gates + t0.to(tl.int64) * GP + channel
    values_out = d_values + t0.to(tl.int64) * VP + channel
    sums = ()
    for _ in tl.static_range(C if SUMMED else 0):
        sums = sums + (ok.to(tl.float32) * 0.0,)
    for k in range(tl.cdiv(end - start, U * W)):
        if DIRECT:
            inputs = earlier(inputs, C, H, U * W)
            held, ups, stored = pending
            pending = load_tile(inputs, ok, t0 - U * W, start, lower, U, U + K - 1, C, H)
        else:
            async_copy.wait_group(S - 2)
            inputs, ahead = copy_tile(smem, (k + S - 1) % S, inputs, ahead, start, lower, plan, C, H, U * W)
            held = smem
            stored = read_rows(smem[C + 2], k % S, U + K - 1, G)
            ups = read_rows(smem[C + 1], k % S, U, G)
        weights, inverses, ways = _weigh(held, k % S, own, m, CODE, GATED, ORDER, G, U, DIRECT)
        pasts = _pasts(stored, initial, channel, ok, t0, lower, U + K - 1, K)
        begun = take_turn(boards[ME], turns[ME], k, ME, K, G)
        adjoints, carry = _walk(ways, ups, begun, first, own, m, ORDER, U)
        pass_turn(boards[(ME + 1) % W], turns[(ME + 1) % W], carry, K, G)
        if (t0 >= start) & (t0 - U < stop):  # step `stop` is here
            _store_carry(d_initial, ways, adjoints, begun, t0, stop, first, own, channel, ok, m, ORDER, U)
        sums = _store_gradients((gates_out, values_out), held, k % S, weights, inverses, adjoints, pasts, t0, start,
                                first, ok, sums, H, GP, VP, m, CODE, GATED, ORDER, G, U, DIRECT, SUMMED)  # fmt: skip
        gates_out -= U * W * GP
        values_out -= U * W * VP
        t0 -= U * W
    for j in tl.static_range(C if SUMMED else 0):
        tl.store(d_sums + (ME * C + j) * H + channel, sums[j], mask=ok)


@gluon.jit(do_not_specialize=INTEGERS)
def backward(gates, values, states, initial, grads, grad_final, d_gates, d_values, d_initial, d_sums, bounds,
             horizons, T, segment, segments, groups, gb, gt, gj, vb, vt, H: tl.constexpr, GP: tl.constexpr,
             VP: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr,
             ORDER: tl.constexpr, PACKED: tl.constexpr, W: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
             S: tl.constexpr, VEC: tl.constexpr, WARPS: tl.constexpr, REGS: tl.constexpr, R: tl.constexpr,
             PHASE: tl.constexpr, SUMMED: tl.constexpr):  # fmt: skip
    """One program: G x LANES lanes of one sequence. Strides of gates and values count units of VEC numbers (VEC = 0:
    the fast format, number by number); R is the rows of states that a tile of U steps reads, rounded up to a power
    of two. GP and VP are the numbers between two steps of d_gates and of d_values. With SUMMED, d_sums [S, W, C, H]
    receives each worker's sums of the gates' gradients."""
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
        jobs = jobs + (tile_rings(gates.dtype.element_ty, C, G, U, S, VEC, R),)
    here = row * T * H
    if VEC == 0:
        gates += here * C
        values += here
    else:
        gates += row * gb * VEC
        values += row * vb * VEC
    inputs = (gates, values, states + here, grads + here)
    initial += whose
    steps = row * T
    sums = d_sums + s.to(tl.int64) * (W * C * H)
    outputs = (d_gates + steps * GP, d_values + steps * VP, d_initial + out, sums)
    strides = (gt, gj, vt)
    tl.static_assert(W == 2 or W == 4)
    # The default partition, then the workers.
    gl.warp_specialize([
        (idle, ()) if me < 0 else
        (_worker, (jobs[me], boards, turns, inputs, initial, outputs, start, end, lower, stop, c0, strides,
                   H, GP, VP, m, LANES, CODE, GATED, ORDER, me, W, G, U, S, VEC, R, SUMMED))
        for me in ((-1, 0, 1) if W == 2 else (-1, 0, 1, 2, 3))
    ], WARPS, REGS)  # fmt: skip
