"""All recurrences on Hopper, forward: warps walk time in a relay.

NUM_WORKERS workers of NUM_WARPS warps share the time of NUM_WARPS x LANES lanes: worker w has the tiles w,
w + NUM_WORKERS, … of BLOCK_T steps. Each streams its own tiles through shared memory (NUM_STAGES stages), turns gates
into weights and waits for the state; then it walks its steps from the state that its predecessor left in shared memory,
hands the state on and stores. The chain of hand-offs is the only sequential part; everything else of a tile overlaps
with the walks of the other workers.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.gate_norm import row_weights
from statemix.ops.triton.hopper import common
from statemix.ops.triton.hopper.steps import step


@gluon.jit
def _copy_plan(c0, strides, CFG: tl.constexpr):
    """What the copies of all tiles have in common: the step of each number and whether it is used; where the numbers
    are; the distances between planes and between the worker's tiles."""
    gt, gj, vt = strides
    STRIDE: tl.constexpr = CFG.BLOCK_T * CFG.NUM_WORKERS * CFG.VECTOR
    when, source, inside = common.tile(c0, CFG.BLOCK_T, CFG)
    at = (when * (gt * CFG.VECTOR) + source, when * (vt * CFG.VECTOR) + source)
    onward = (gt.to(tl.int64) * STRIDE, vt.to(tl.int64) * STRIDE)
    plane = gj.to(tl.int64) * CFG.VECTOR
    return when, inside, at, plane, onward


@gluon.jit
def _copy_tile(smem_stages, slot, pointers, ahead, end, plan, CFG: tl.constexpr):
    """Start copying the tile at step `ahead`; returns pointers and step of the worker's next tile."""
    C: tl.constexpr = CFG.COLUMNS
    g, v = pointers
    when, inside, at, plane, onward = plan
    gates, values, mask = g + at[0], v + at[1], inside & (ahead + when < end)
    common.copy_planes(smem_stages, slot, gates, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem_stages[C].index(slot), values, mask=mask)
    async_copy.commit_group()
    return (g + onward[0], v + onward[1]), ahead + CFG.BLOCK_T * CFG.NUM_WORKERS


@gluon.jit
def _weigh(tiles, slot, CFG: tl.constexpr):
    """The weights of a tile's steps, and their inputs."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    GATED: tl.constexpr = CFG.COLUMNS > CFG.M
    weights, inputs = (), ()
    for u in tl.static_range(BLOCK_T):
        raw = common.gates_at(tiles, slot, u, CFG)
        value = common.value_at(tiles, slot, u, CFG)
        p = row_weights(raw, CFG.NORM, CFG.COLUMNS, True)
        weights = weights + (p,)
        inputs = inputs + ((p[CFG.M] * value if GATED else value),)
    return weights, inputs


@gluon.jit
def _walk(weights, inputs, state, first, CFG: tl.constexpr):
    """The states of a tile's steps, and what lanes carry after them."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    states = ()
    for u in tl.static_range(BLOCK_T):
        state = step(weights[u], state, inputs[u], first, CFG.M, CFG.HLRU)
        states = states + (state[0],)
    return states, state


@gluon.jit
def _store_final(final, weights, inputs, state, t0, finish, first, channel, ok, CFG: tl.constexpr):
    """Walk a tile from step t0 again, looking at every state, and store what lanes carry at `finish`."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    K: tl.constexpr = CFG.CARRIED
    for u in tl.static_range(BLOCK_T):
        state = step(weights[u], state, inputs[u], first, CFG.M, CFG.HLRU)
        for i in tl.static_range(K):
            tl.store(final + channel * K + i, state[i], mask=ok & (t0 + u == finish - 1))


@gluon.jit
def _worker(
    smem_stages, handoff, pointers, start, end, finish, c0, strides, WORKER: tl.constexpr, CFG: tl.constexpr
):
    """The tiles WORKER, WORKER + NUM_WORKERS, … of a program's lanes."""
    g, v, out, final = pointers
    gt, gj, vt = strides
    H: tl.constexpr = CFG.H
    C: tl.constexpr = CFG.COLUMNS
    S: tl.constexpr = CFG.NUM_STAGES
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    ROUND: tl.constexpr = CFG.BLOCK_T * CFG.NUM_WORKERS
    DIRECT: tl.constexpr = CFG.VECTOR == 0
    channel, ok, first, own = common.worker_lanes(c0, CFG)
    t0 = start + WORKER * BLOCK_T
    at = out + t0.to(tl.int64) * H + channel
    if DIRECT:
        g += t0.to(tl.int64) * (C * H) + channel
        v += t0.to(tl.int64) * H + channel
        pending = common.load_steps(g, v, ok, end - t0, 1, CFG)
    else:
        plan = _copy_plan(c0, strides, CFG)
        sources = (g + t0.to(tl.int64) * gt * CFG.VECTOR, v + t0.to(tl.int64) * vt * CFG.VECTOR)
        ahead = t0
        for k in tl.static_range(S - 1):
            sources, ahead = _copy_tile(smem_stages, k, sources, ahead, end, plan, CFG)
    for k in range(tl.cdiv(end - start, ROUND)):
        if DIRECT:
            g += ROUND * C * H
            v += ROUND * H
            tiles = pending
            pending = common.load_steps(g, v, ok, end - t0 - ROUND, 1, CFG)
        else:
            async_copy.wait_group(S - 2)
            sources, ahead = _copy_tile(smem_stages, (k + S - 1) % S, sources, ahead, end, plan, CFG)
            tiles = smem_stages
        weights, inputs = _weigh(tiles, k % S, CFG)
        begun = common.receive_state(handoff, k, WORKER, CFG)
        states, state = _walk(weights, inputs, begun, first, CFG)
        common.send_state(handoff, state, WORKER, CFG)
        for u in tl.static_range(BLOCK_T):
            tl.store(at + u * H, states[u].to(out.dtype.element_ty), mask=ok & (t0 + u < end))
        if (t0 < end) & (t0 + BLOCK_T >= finish) & (end == finish):  # the row's last step is here
            _store_final(final, weights, inputs, begun, t0, finish, first, channel, ok, CFG)
        at += ROUND * H
        t0 += ROUND


@gluon.jit(do_not_specialize=common.INTEGERS)
def hopper_forward(
    inputs, outputs, bounds, memory_lengths, T, chunk, num_chunks, groups, gb, gt, gj, vb, vt, CFG: tl.constexpr
):  # fmt: skip
    """One program: NUM_WARPS x LANES lanes of one sequence. inputs: gates, values, initial; outputs: states, final.

    Strides of gates and values count units of VECTOR numbers, so that the compiler knows how they divide; VECTOR = 0
    reads tensors in the fast format number by number."""
    gates, values, initial = inputs
    states, final = outputs
    H: tl.constexpr = CFG.H
    C: tl.constexpr = CFG.COLUMNS
    K: tl.constexpr = CFG.CARRIED
    W: tl.constexpr = CFG.NUM_WORKERS
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (CFG.NUM_WARPS * CFG.LANES)
    row, start, end = common.sequence(bounds, s, T, chunk, num_chunks, CFG)
    channel, ok = common.program_lanes(c0, CFG)
    initial += s.to(tl.int64) * H * K
    # The end of the step whose state is wanted, and whose it is.
    finish, owner = (T, s // num_chunks) if CFG.PASS == common.SINGLE_PASS and not CFG.PACKED else (end, s)
    final += owner.to(tl.int64) * H * K
    if CFG.PASS == common.SINGLE_PASS:
        for i in tl.static_range(K):
            carried = tl.load(initial + channel * K + i, mask=ok, other=0.0)
            tl.store(final + channel * K + i, carried, mask=ok & (start >= end))
    else:
        active = common.active_steps(memory_lengths + s.to(tl.int64) * H, initial, channel, ok, CFG)
        end = tl.minimum(end, start + active)
        if CFG.PASS == common.FIXUP_PASS:
            finish = -1
    handoff = common.open_handoff(initial, channel, ok, CFG)
    dtype: tl.constexpr = gates.dtype.element_ty
    stages = ()
    for _ in tl.static_range(W):
        one = () if CFG.VECTOR == 0 else common.allocate_stages(dtype, C + 1, CFG.BLOCK_T, CFG)
        stages = stages + (one,)
    if CFG.VECTOR == 0:
        gates += row * T * (C * H)
        values += row * T * H
    else:
        gates += row * gb * CFG.VECTOR
        values += row * vb * CFG.VECTOR
    pointers = (gates, values, states + row * T * H, final)
    strides = (gt, gj, vt)
    tl.static_assert(W == 2 or W == 4)
    # The default partition, then the workers.
    gl.warp_specialize([
        (common.idle, ()) if worker < 0 else
        (_worker, (stages[worker], handoff, pointers, start, end, finish, c0, strides, worker, CFG))
        for worker in ((-1, 0, 1) if W == 2 else (-1, 0, 1, 2, 3))
    ], CFG.WORKER_WARPS, CFG.WORKER_REGISTERS)  # fmt: skip
