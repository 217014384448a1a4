"""All recurrences on Hopper, backward: the relay of `forward` in reverse.

Tiles are counted from the end of a sequence. With lambda_t the adjoint of h_t, a worker walks lambda = dh + carry and
the next carry; the gates' gradients follow from lambda, the weights and the saved states (see `gate_norm`) after the
carry is handed on. In BD-LRU lane i owns row i of A, but A^T lambda needs column j in lane j: rows are rotated by i
beforehand, so that register s of lane i holds A[i, (i - s) mod M] and every exchange is one gather of one register. In
H-LRU the carry is what the next M steps back still receive.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.gate_norm import gate_gradient, row_shift, soft_weights, weights_back
from statemix.ops.triton.hopper import backward_tiles, common
from statemix.ops.triton.hopper.steps import step_back


@gluon.jit
def _lagged(pasts, u: tl.constexpr, first, CFG: tl.constexpr):
    """The M numbers that step u's transition gates multiply."""
    m: tl.constexpr = CFG.M
    lagged = ()
    for j in tl.static_range(m):
        lagged = lagged + (
            (pasts[u + j] if CFG.HLRU else (pasts[u] if m == 1 else tl.gather(pasts[u], first + j, 2))),
        )
    return lagged


@gluon.jit
def _pasts(stored, initial, channel, ok, t0, lower, CFG: tl.constexpr):
    """States t0 - 1, t0 - 2, …, all that a tile needs; before the start of the row they come from the carried state."""
    K: tl.constexpr = CFG.CARRIED
    ROWS: tl.constexpr = CFG.BLOCK_T + K - 1
    pasts = ()
    for r in tl.static_range(ROWS):
        before = lower - (t0 - 1 - r)  # 1 for the newest carried state
        carried = ok & (before > 0) & (before <= K)
        at = initial + channel * K + before - 1
        pasts = pasts + (tl.load(at, mask=carried, other=stored[r].to(tl.float32)),)
    return pasts


@gluon.jit
def _gradients(raw, weights, adjoint, value, lagged, out, mask, sums, CFG: tl.constexpr):
    """Store the gradients of one step's gates; returns that of its value, and their sums with this step in them."""
    m: tl.constexpr = CFG.M
    C: tl.constexpr = CFG.COLUMNS
    GATED: tl.constexpr = CFG.COLUMNS > CFG.M
    p, inverse, p_last = weights
    h = p[m] * value if GATED else value
    for j in tl.static_range(m):
        h = tl.fma(p[j], lagged[j], h)
    shift = row_shift(raw, CFG.NORM, C)
    added = ()
    for j in tl.static_range(C):
        u = lagged[j] if j < m else value
        d = gate_gradient(raw[j], p[j], inverse, shift, adjoint, u, h, CFG.NORM)
        tl.store(out + j * CFG.H, d.to(out.dtype.element_ty), mask=mask)
        if CFG.SUMMED:
            added = added + (tl.where(mask, sums[j] + d, sums[j]),)
    return (p_last * adjoint if GATED else adjoint), added


@gluon.jit
def _weigh(tiles, slot, own, CFG: tl.constexpr):
    """The soft weights of a tile's steps with what their sums are divided by and the weights of the values; the weights
    of the states as `step_back` takes them."""
    C: tl.constexpr = CFG.COLUMNS
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    weights, transposed = (), ()
    for u in tl.static_range(BLOCK_T):
        raw = common.gates_at(tiles, slot, u, CFG)
        p, inverse = soft_weights(raw, CFG.NORM, C, True)
        p_last, back = weights_back(raw, p, own, CFG.NORM, CFG.M, C, CFG.HLRU)
        weights = weights + ((p, inverse, p_last),)
        transposed = transposed + (back,)
    return weights, transposed


@gluon.jit
def _walk(transposed, grads, carry, first, own, CFG: tl.constexpr):
    """The adjoints of a tile's steps, and what lanes carry after them."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    adjoints = ()
    for u in tl.static_range(BLOCK_T):
        adjoints = adjoints + (carry[0] + grads[u].to(tl.float32),)
        carry = step_back(transposed[u], adjoints[u], carry, first, own, CFG.M, CFG.HLRU)
    return adjoints, carry


@gluon.jit
def _store_carry(out, transposed, adjoints, carry, t0, stop, first, own, channel, ok, CFG: tl.constexpr):
    """Walk a tile from step t0 back again, looking at every carry, and store what lanes carry after step `stop`."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    K: tl.constexpr = CFG.CARRIED
    for u in tl.static_range(BLOCK_T):
        carry = step_back(transposed[u], adjoints[u], carry, first, own, CFG.M, CFG.HLRU)
        for i in tl.static_range(K):
            tl.store(out + channel * K + i, carry[i], mask=ok & (t0 - u == stop))


@gluon.jit
def _store_gradients(out, tiles, slot, weights, adjoints, pasts, t0, start, first, ok, sums,
                     CFG: tl.constexpr):  # fmt: skip
    """The gradients of the gates and values of a tile from step t0 back, as far as `start`; returns the sums of the
    gates' with this tile in them."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    gates_out, values_out = out
    for u in tl.static_range(BLOCK_T):
        raw = common.gates_at(tiles, slot, u, CFG)
        value = common.value_at(tiles, slot, u, CFG)
        mask = ok & (t0 - u >= start)
        lagged = _lagged(pasts, u, first, CFG)
        gates_at_u = gates_out - u * CFG.D_GATES_STRIDE
        d, sums = _gradients(raw, weights[u], adjoints[u], value, lagged, gates_at_u, mask, sums, CFG)
        tl.store(values_out - u * CFG.D_VALUES_STRIDE, d.to(values_out.dtype.element_ty), mask=mask)
    return sums


@gluon.jit
def _worker(smem_stages, handoff, pointers, initial, outputs, start, end, lower, stop, c0, strides,
            WORKER: tl.constexpr, CFG: tl.constexpr):  # fmt: skip
    """The tiles WORKER, WORKER + NUM_WORKERS, … of a program's lanes, from the end."""
    d_gates, d_values, d_initial, d_sums = outputs
    C: tl.constexpr = CFG.COLUMNS
    S: tl.constexpr = CFG.NUM_STAGES
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    ROUND: tl.constexpr = CFG.BLOCK_T * CFG.NUM_WORKERS
    DIRECT: tl.constexpr = CFG.VECTOR == 0
    SUMS: tl.constexpr = CFG.COLUMNS if CFG.SUMMED else 0
    channel, ok, first, own = common.worker_lanes(c0, CFG)
    t0 = end - 1 - WORKER * BLOCK_T
    if DIRECT:
        pointers = backward_tiles.lane_pointers(pointers, t0, channel, CFG)
        pending = backward_tiles.load_tile(pointers, ok, t0, start, lower, CFG)
    else:
        pointers, ahead, plan = backward_tiles.begin_copies(
            smem_stages, pointers, t0, start, lower, c0, strides, CFG
        )
    gates_out = d_gates + t0.to(tl.int64) * CFG.D_GATES_STRIDE + channel
    values_out = d_values + t0.to(tl.int64) * CFG.D_VALUES_STRIDE + channel
    sums = ()
    for _ in tl.static_range(SUMS):
        sums = sums + (ok.to(tl.float32) * 0.0,)
    for k in range(tl.cdiv(end - start, ROUND)):
        if DIRECT:
            pointers = backward_tiles.step_back_pointers(pointers, ROUND, CFG)
            tiles, grads, stored = pending
            pending = backward_tiles.load_tile(pointers, ok, t0 - ROUND, start, lower, CFG)
        else:
            async_copy.wait_group(S - 2)
            pointers, ahead = backward_tiles.copy_tile(
                smem_stages, (k + S - 1) % S, pointers, ahead, start, lower, plan, CFG
            )
            tiles = smem_stages
            stored = backward_tiles.read_rows(smem_stages[C + 2], k % S, BLOCK_T + CFG.CARRIED - 1, CFG)
            grads = backward_tiles.read_rows(smem_stages[C + 1], k % S, BLOCK_T, CFG)
        weights, transposed = _weigh(tiles, k % S, own, CFG)
        pasts = _pasts(stored, initial, channel, ok, t0, lower, CFG)
        begun = common.receive_state(handoff, k, WORKER, CFG)
        adjoints, carry = _walk(transposed, grads, begun, first, own, CFG)
        common.send_state(handoff, carry, WORKER, CFG)
        if (t0 >= start) & (t0 - BLOCK_T < stop):  # step `stop` is here
            _store_carry(d_initial, transposed, adjoints, begun, t0, stop, first, own, channel, ok, CFG)
        sums = _store_gradients((gates_out, values_out), tiles, k % S, weights, adjoints, pasts, t0, start, first, ok,
                                sums, CFG)  # fmt: skip
        gates_out -= ROUND * CFG.D_GATES_STRIDE
        values_out -= ROUND * CFG.D_VALUES_STRIDE
        t0 -= ROUND
    for j in tl.static_range(SUMS):
        tl.store(d_sums + (WORKER * C + j) * CFG.H + channel, sums[j], mask=ok)


@gluon.jit(do_not_specialize=common.INTEGERS)
def hopper_backward(
    inputs, outputs, bounds, memory_lengths, T, chunk, num_chunks, groups, gb, gt, gj, vb, vt, CFG: tl.constexpr
):  # fmt: skip
    """One program: NUM_WARPS x LANES lanes of one sequence. inputs: gates, values, states, initial, gradients of the
    states and of the final state; outputs: the gradients of gates, values and the initial state, and sums.

    Strides of gates and values as in `forward`. With SUMMED, sums [S, NUM_WORKERS, COLUMNS, H] receives each worker's
    sums of the gates' gradients."""
    gates, values, states, initial, grads, grad_final = inputs
    d_gates, d_values, d_initial, d_sums = outputs
    H: tl.constexpr = CFG.H
    C: tl.constexpr = CFG.COLUMNS
    K: tl.constexpr = CFG.CARRIED
    W: tl.constexpr = CFG.NUM_WORKERS
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (CFG.NUM_WARPS * CFG.LANES)
    row, start, end = common.sequence(bounds, s, T, chunk, num_chunks, CFG)
    channel, ok = common.program_lanes(c0, CFG)
    # Where the row starts, and whose state it begins with.
    lower, owner = (start, s) if CFG.PACKED else (0, s // num_chunks)
    mine, whose = s.to(tl.int64) * H * K, owner.to(tl.int64) * H * K
    # The step before which the carry is wanted, and where it goes.
    stop, out = (lower, whose) if CFG.PASS == common.SINGLE_PASS else (start, mine)
    if CFG.PASS == common.SINGLE_PASS:
        for i in tl.static_range(K):
            carried = tl.load(grad_final + mine + channel * K + i, mask=ok, other=0.0)
            tl.store(d_initial + out + channel * K + i, carried, mask=ok & (start >= end))
    else:
        active = common.active_steps(memory_lengths + s.to(tl.int64) * H, grad_final + mine, channel, ok, CFG)
        start = tl.maximum(start, end - active)
        if CFG.PASS == common.FIXUP_PASS:
            stop = -common.NEVER_FORGETS
    handoff = common.open_handoff(grad_final + mine, channel, ok, CFG)
    stages = ()
    for _ in tl.static_range(W):
        stages = stages + (backward_tiles.tile_stages(gates.dtype.element_ty, CFG),)
    here = row * T * H
    if CFG.VECTOR == 0:
        gates += here * C
        values += here
    else:
        gates += row * gb * CFG.VECTOR
        values += row * vb * CFG.VECTOR
    pointers = (gates, values, states + here, grads + here)
    initial += whose
    steps = row * T
    sums = d_sums + s.to(tl.int64) * (W * C * H)
    outputs = (
        d_gates + steps * CFG.D_GATES_STRIDE,
        d_values + steps * CFG.D_VALUES_STRIDE,
        d_initial + out,
        sums,
    )
    strides = (gt, gj, vt)
    tl.static_assert(W == 2 or W == 4)
    # The default partition, then the workers.
    gl.warp_specialize([
        (common.idle, ()) if worker < 0 else
        (_worker, (stages[worker], handoff, pointers, initial, outputs, start, end, lower, stop, c0, strides,
                   worker, CFG))
        for worker in ((-1, 0, 1) if W == 2 else (-1, 0, 1, 2, 3))
    ], CFG.WORKER_WARPS, CFG.WORKER_REGISTERS)  # fmt: skip
