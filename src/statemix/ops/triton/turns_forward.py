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
    gates_at,
    idle,
    lanes,
    load_steps,
    open_boards,
    pass_turn,
    reach,
    rings,
    sequence,
    take_turn,
    tile,
    value_at,
)
from statemix.ops.triton.turns_steps import step


@gluon.jit
def _plan(c0, strides, H: tl.constexpr, LANES: tl.constexpr, W: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
          VEC: tl.constexpr):  # fmt: skip
    """What the copies of all tiles have in common: the step of each number and whether it is used; where the numbers
    are; the distances between planes and between the worker's tiles."""
    gt, gj, vt = strides
    when, source, inside = tile(c0, H, U, LANES, G, VEC)
    at = (when * (gt * VEC) + source, when * (vt * VEC) + source)
    onward = (gt.to(tl.int64) * (U * W * VEC), vt.to(tl.int64) * (U * W * VEC))
    plane = gj.to(tl.int64) * VEC
    return when, inside, at, plane, onward


@gluon.jit
def _copy_tile(smem, slot, inputs, ahead, end, plan, C: tl.constexpr, STEPS: tl.constexpr):
    """Start copying the tile at step `ahead`; returns inputs and step of the worker's next, STEPS later."""
    g, v = inputs
    when, inside, at, plane, onward = plan
    gates, values, mask = g + at[0], v + at[1], inside & (ahead + when < end)
    fetch(smem, slot, gates, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem[C].index(slot), values, mask=mask)
    async_copy.commit_group()
    return (g + onward[0], v + onward[1]), ahead + STEPS


@gluon.jit
def _weigh(held, slot, m: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
           DIRECT: tl.constexpr):  # fmt: skip
    """The weights of a tile's steps, and what drives them."""
    C: tl.constexpr = m + 1 if GATED else m
    weights, drives = (), ()
    for u in tl.static_range(U):
        raw = gates_at(held, slot, u, C, G, DIRECT)
        value = value_at(held, slot, u, C, G, DIRECT)
        p, inverse = row_weights(raw, CODE, C, True)
        weights = weights + (p,)
        drives = drives + ((p[m] * value if GATED else value),)
    return weights, drives


@gluon.jit
def _walk(weights, drives, state, first, m: tl.constexpr, ORDER: tl.constexpr, U: tl.constexpr):
    """The states of a tile's steps, and what lanes carry after them."""
    states = ()
    for u in tl.static_range(U):
        state = step(weights[u], state, drives[u], first, m, ORDER)
        states = states + (state[0],)
    return states, state


@gluon.jit
def _store_final(final, weights, drives, state, t0, finish, first, channel, ok, m: tl.constexpr,
                 ORDER: tl.constexpr, U: tl.constexpr):  # fmt: skip
    """Walk a tile from step t0 again, looking at every state, and store what lanes carry at `finish`."""
    K: tl.constexpr = m if ORDER else 1
    for u in tl.static_range(U):
        state = step(weights[u], state, drives[u], first, m, ORDER)
        for i in tl.static_range(K):
            tl.store(final + channel * K + i, state[i], mask=ok & (t0 + u == finish - 1))


@gluon.jit
def _worker(smem, boards, turns, operands, start, end, finish, c0, strides, H: tl.constexpr, m: tl.constexpr,
            LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr, ME: tl.constexpr,
            W: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr):  # fmt: skip
    """The tiles ME, ME + W, … of a program's lanes."""
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
        plan = _plan(c0, strides, H, LANES, W, G, U, VEC)
        inputs, ahead = (g + t0.to(tl.int64) * gt * VEC, v + t0.to(tl.int64) * vt * VEC), t0
        for k in tl.static_range(S - 1):
            inputs, ahead = _copy_tile(smem, k, inputs, ahead, end, plan, C, U * W)
    for k in range(tl.cdiv(end - start, U * W)):
        if DIRECT:
            g += U * W * C * H
            v += U * W * H
            held = pending
            pending = load_steps(g, v, ok, end - t0 - U * W, U, C, H, 1)
        else:
            async_copy.wait_group(S - 2)
            inputs, ahead = _copy_tile(smem, (k + S - 1) % S, inputs, ahead, end, plan, C, U * W)
            held = smem
        weights, drives = _weigh(held, k % S, m, CODE, GATED, G, U, DIRECT)
        begun = take_turn(boards[ME], turns[ME], k, ME, K, G)
        states, state = _walk(weights, drives, begun, first, m, ORDER, U)
        pass_turn(boards[(ME + 1) % W], turns[(ME + 1) % W], state, K, G)
        for u in tl.static_range(U):
            tl.store(at + u * H, states[u].to(out.dtype.element_ty), mask=ok & (t0 + u < end))
        if (t0 < end) & (t0 + U >= finish) & (end == finish):  # the row's last step is here
            _store_final(final, weights, drives, begun, t0, finish, first, channel, ok, m, ORDER, U)
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
    tl.static_assert(W == 2 or W == 4)
    # The default partition, then the workers.
    gl.warp_specialize([
        (idle, ()) if me < 0 else
        (_worker, (jobs[me], boards, turns, data, start, end, finish, c0, strides,
                   H, m, LANES, CODE, GATED, ORDER, me, W, G, U, S, VEC))
        for me in ((-1, 0, 1) if W == 2 else (-1, 0, 1, 2, 3))
    ], WARPS, REGS)  # fmt: skip
