"""All recurrences on Hopper, forward: warps take turns in time.

W workers of G warps share the time of G x LANES lanes: worker w has the tiles w, w + W, … of U steps. Each streams its
own tiles through shared memory (S stages), turns gates into weights and waits for its turn; then it walks its U steps
from the state that its predecessor left on a board, passes the state on and stores. The chain of turns is the only
sequential part; everything else of a tile overlaps with the turns of the other workers.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.rows import row_weights
from statemix.ops.triton.turns_common import (
    ALL,
    CORRECT,
    INTEGERS,
    fetch,
    gates_of,
    idle,
    lanes,
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
from statemix.ops.triton.turns_steps import step


@gluon.jit
def _fetch(smem, slot, gates, values, plane, mask, C: tl.constexpr):
    """One tile of gates and values."""
    fetch(smem, slot, gates, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem[C].index(slot), values, mask=mask)
    async_copy.commit_group()


@gluon.jit
def _worker(smem, boards, turns, operands, start, end, finish, c0, strides, H: tl.constexpr, m: tl.constexpr,
            LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr, ME: tl.constexpr,
            W: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr):  # fmt: skip
    g, v, out, final = operands
    gt, gj, vt = strides
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    DIRECT: tl.constexpr = VEC == 0
    channel, ok, first, own = lanes(c0, H, m, LANES, G)
    t0 = start + ME * U
    at = out + t0.to(tl.int64) * H + channel
    if DIRECT:
        g += t0.to(tl.int64) * (C * H) + channel
        v += t0.to(tl.int64) * H + channel
        pending = load_steps(g, v, ok, end - t0, U, C, H, 1)
    else:
        when, source, inside = tile(c0, H, U, LANES, G, VEC)
        g_at, v_at = when * (gt * VEC) + source, when * (vt * VEC) + source
        dg, dv = gt.to(tl.int64) * (U * W * VEC), vt.to(tl.int64) * (U * W * VEC)
        plane = gj.to(tl.int64) * VEC
        g += t0.to(tl.int64) * gt * VEC
        v += t0.to(tl.int64) * vt * VEC
        ahead = t0
        for k in tl.static_range(S - 1):
            _fetch(smem, k, g + g_at, v + v_at, plane, inside & (ahead + when < end), C)
            g += dg
            v += dv
            ahead += U * W
    for k in range(tl.cdiv(end - start, U * W)):
        if DIRECT:
            g += U * W * C * H
            v += U * W * H
            numbers = pending
            pending = load_steps(g, v, ok, end - t0 - U * W, U, C, H, 1)
        else:
            async_copy.wait_group(S - 2)
            _fetch(smem, (k + S - 1) % S, g + g_at, v + v_at, plane, inside & (ahead + when < end), C)
            g += dg
            v += dv
            ahead += U * W
        weights, drives, states = (), (), ()
        for u in tl.static_range(U):
            raw = gates_of(numbers[u], C) if DIRECT else read_gates(smem, k % S, u, C, G)
            value = numbers[u][C].to(tl.float32) if DIRECT else read(smem[C], k % S, u, G)
            p, inverse = row_weights(raw, CODE, C, True)
            weights = weights + (p,)
            drives = drives + ((p[m] * value if GATED else value),)
        begun = take_turn(boards[ME], turns[ME], k, ME, K, G)
        state = begun
        for u in tl.static_range(U):
            state = step(weights[u], state, drives[u], first, m, ORDER)
            states = states + (state[0],)
        pass_turn(boards[(ME + 1) % W], turns[(ME + 1) % W], state, K, G)
        for u in tl.static_range(U):
            tl.store(at + u * H, states[u].to(out.dtype.element_ty), mask=ok & (t0 + u < end))
        if (t0 < end) & (t0 + U >= finish) & (end == finish):
            # The row's last step is here: walk again, looking at every state.
            state = begun
            for u in tl.static_range(U):
                state = step(weights[u], state, drives[u], first, m, ORDER)
                for i in tl.static_range(K):
                    tl.store(final + channel * K + i, state[i], mask=ok & (t0 + u == finish - 1))
        at += U * W * H
        t0 += U * W


@gluon.jit(do_not_specialize=INTEGERS)
def forward(gates, values, initial, states, final, bounds, horizons, T, segment, segments, groups, gb, gt, gj, vb, vt,
            H: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr,
            ORDER: tl.constexpr, PACKED: tl.constexpr, W: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
            S: tl.constexpr, VEC: tl.constexpr, WARPS: tl.constexpr, REGS: tl.constexpr,
            PHASE: tl.constexpr):  # fmt: skip
    """One program: G x LANES lanes of one sequence. Strides of gates and values count units of VEC numbers, so that
    the compiler knows how they divide; VEC = 0 reads tensors in the fast format number by number."""
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (G * LANES)
    row, start, end = sequence(bounds, s, T, segment, segments, PACKED)
    place = gl.arange(0, G * 32, layout=gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    channel = c0 + place // 32 * LANES + place % 32
    ok = (place % 32 < LANES) & (channel < H)
    initial += s.to(tl.int64) * H * K
    # Where the state that is asked for ends a step, and whose it is.
    finish, owner = (T, s // segments) if PHASE == ALL and not PACKED else (end, s)
    final += owner.to(tl.int64) * H * K
    if PHASE == ALL:
        for i in tl.static_range(K):
            carried = tl.load(initial + channel * K + i, mask=ok, other=0.0)
            tl.store(final + channel * K + i, carried, mask=ok & (start >= end))
    else:
        end = tl.minimum(end, start + reach(horizons + s.to(tl.int64) * H, initial, channel, ok, PHASE, K))
        if PHASE == CORRECT:
            finish = -1
    boards, turns = open_boards(initial, channel, ok, W, G, K)
    jobs = ()
    for _ in tl.static_range(W):
        jobs = jobs + ((() if VEC == 0 else rings(gates.dtype.element_ty, C + 1, S, U * G * 32)),)
    if VEC == 0:
        gates += row * T * (C * H)
        values += row * T * H
    else:
        gates += row * gb * VEC
        values += row * vb * VEC
    data = (gates, values, states + row * T * H, final)
    strides = (gt, gj, vt)
    if W == 2:
        gl.warp_specialize([
            (idle, ()),
            (_worker, (jobs[0], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 0, W, G, U, S, VEC)),
            (_worker, (jobs[1], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 1, W, G, U, S, VEC)),
        ], WARPS, REGS)  # fmt: skip
    else:
        tl.static_assert(W == 4)
        gl.warp_specialize([
            (idle, ()),
            (_worker, (jobs[0], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 0, W, G, U, S, VEC)),
            (_worker, (jobs[1], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 1, W, G, U, S, VEC)),
            (_worker, (jobs[2], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 2, W, G, U, S, VEC)),
            (_worker, (jobs[3], boards, turns, data, start, end, finish, c0, strides,
                       H, m, LANES, CODE, GATED, ORDER, 3, W, G, U, S, VEC)),
        ], WARPS, REGS)  # fmt: skip
