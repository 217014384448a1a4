"""What a chunk of time does to the state it begins with, on Hopper: a matrix and an offset, for long sequences.

A chunk maps the state h at its start to P h + o. Forward, the M unit states and the zero state are walked through the
chunk side by side: they end as the columns of P and as o. In reverse, the M unit carries are walked back and end as
the rows of P; the offset is the carry that the states' gradients alone leave at the start.

Gates that forget make P vanish long before the chunk ends, and that is cheaper to see than P: the state of all ones
under the weights' absolute values bounds every row of P (reverse: column). It is walked first. Once all of it is below
LEAST, P counts as zero, the memory length is the number of steps that still knew the state at the start, and the rest
is left to others (`dispatch`). A bound that does not shrink in time is given up, and P and o are taken.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.gate_norm import rotate, row_weights
from statemix.ops.triton.hopper import common
from statemix.ops.triton.hopper.steps import step, step_back

LEAST = tl.constexpr(2.0**-64)
"""A state of which less than this is left is forgotten: float64 rounds such a part of a sum away, and float32 does so
even where the states since then are 2**40 times smaller."""

HOPEFUL = tl.constexpr(2.0**-16)
"""What the bound must have shrunk to after a quarter of the chunk, or it is given up: four times as much is LEAST."""

CHECK_EVERY = tl.constexpr(32)
"""About so many steps lie between two looks at the bound."""


@gluon.jit
def _unit(c: tl.constexpr, own, CFG: tl.constexpr):
    """What lanes carry for unit state c (c = M: for the zero state)."""
    m: tl.constexpr = CFG.M
    zero = own.to(tl.float32) * 0.0
    if CFG.HLRU:
        state = ()
        for i in tl.static_range(m):
            state = state + ((zero + 1.0 if i == c else zero),)
        return state
    else:
        return (tl.where(own == c, 1.0, zero),)


@gluon.jit
def _start(own, BOUND: tl.constexpr, CFG: tl.constexpr):
    """What is walked: all ones (BOUND), or the M unit states and the zero state."""
    m: tl.constexpr = CFG.M
    K: tl.constexpr = CFG.CARRIED
    columns = ()
    if BOUND:
        one, state = own.to(tl.float32) * 0.0 + 1.0, ()
        for _i in tl.static_range(K):
            state = state + (one,)
        columns = (state,)
    else:
        for c in tl.static_range(m + 1):
            columns = columns + (_unit(c, own, CFG),)
    return columns


@gluon.jit
def _advance(p, columns, b, valid, first, own, BOUND: tl.constexpr, CFG: tl.constexpr):
    """All columns one step on (back if REVERSE); as they were where the step is not one of the chunk's."""
    m: tl.constexpr = CFG.M
    K: tl.constexpr = CFG.CARRIED
    COUNT: tl.constexpr = 1 if BOUND else CFG.M + 1
    weights = ()
    for j in tl.static_range(m):
        weights = weights + ((tl.abs(p[j]) if BOUND else p[j]),)
    way = rotate(weights, own, m) if CFG.REVERSE and not CFG.HLRU else weights
    moved = ()
    for c in tl.static_range(COUNT):
        old = columns[c]
        driven = b if c == m and not BOUND else b * 0.0
        if CFG.REVERSE:
            new = step_back(way, old[0] + driven, old, first, own, m, CFG.HLRU)
        else:
            new = step(way, old, driven, first, m, CFG.HLRU)
        kept = ()
        for i in tl.static_range(K):
            kept = kept + (tl.where(valid, new[i], old[i]),)
        moved = moved + (kept,)
    return moved


@gluon.jit
def _largest(state, ok, CFG: tl.constexpr):
    """The largest number of a bound over all lanes; a NaN counts as infinite."""
    K: tl.constexpr = CFG.CARRIED
    largest = state[0]
    for i in tl.static_range(1, K):
        largest = tl.where(state[i] <= largest, largest, state[i])
    largest = tl.where(ok, tl.where(largest < float("inf"), largest, float("inf")), 0.0)
    return gl.max(largest.reshape([CFG.NUM_WARPS * 32]), 0)


@gluon.jit
def _copy_tile(smem_stages, slot, gates, inputs, plane, mask, C: tl.constexpr):
    """Start copying one tile of gates and inputs."""
    common.copy_planes(smem_stages, slot, gates, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem_stages[C].index(slot), inputs, mask=mask)
    async_copy.commit_group()


@gluon.jit
def _walk(smem_stages, pointers, start, end, c0, strides, BLOCK_T: tl.constexpr, BOUND: tl.constexpr,
          CFG: tl.constexpr):  # fmt: skip
    """Walk the bound until it has vanished or is given up, or all columns to the end: (columns, tiles walked, 1 if
    what was walked is still there)."""
    g, v = pointers
    gt, gj, vt = strides
    C: tl.constexpr = CFG.COLUMNS
    S: tl.constexpr = CFG.NUM_STAGES
    REVERSE: tl.constexpr = CFG.REVERSE
    channel, ok, first, own = common.worker_lanes(c0, CFG)
    when, source, inside = common.tile(c0, BLOCK_T, CFG)
    tiles = tl.cdiv(end - start, BLOCK_T)
    t0 = start + (tiles - 1) * BLOCK_T if REVERSE else start
    advance = -BLOCK_T if REVERSE else BLOCK_T
    g += t0.to(tl.int64) * gt * CFG.VECTOR
    v += t0.to(tl.int64) * vt * CFG.VECTOR
    dg, dv = gt.to(tl.int64) * CFG.VECTOR * advance, vt.to(tl.int64) * CFG.VECTOR * advance
    g_at, v_at = when * (gt * CFG.VECTOR) + source, when * (vt * CFG.VECTOR) + source
    plane = gj.to(tl.int64) * CFG.VECTOR
    ahead = t0
    for k in tl.static_range(S - 1):
        within = inside & (ahead + when < end) & (ahead + when >= start)
        _copy_tile(smem_stages, k, g + g_at, v + v_at, plane, within, C)
        g += dg
        v += dv
        ahead += advance
    columns = _start(own, BOUND, CFG)
    k, alive = 0, 1
    while (k < tiles) & (alive == 1):
        async_copy.wait_group(S - 2)
        mask = inside & (ahead + when < end) & (ahead + when >= start)
        _copy_tile(smem_stages, (k + S - 1) % S, g + g_at, v + v_at, plane, mask, C)
        g += dg
        v += dv
        ahead += advance
        for n in tl.static_range(BLOCK_T):
            raw = common.gates_at(smem_stages, k % S, BLOCK_T - 1 - n if REVERSE else n, CFG)
            p = row_weights(raw, CFG.NORM, C, True)
            value = common.read(smem_stages[C], k % S, BLOCK_T - 1 - n if REVERSE else n, CFG)
            b = p[CFG.M] * value if C > CFG.M and not REVERSE else value
            valid = t0 + (BLOCK_T - 1 - n if REVERSE else n) < end
            columns = _advance(p, columns, b, valid, first, own, BOUND, CFG)
        t0 += advance
        k += 1
        if BOUND:  # noqa: SIM102  (known at compilation)
            if k % (CHECK_EVERY // BLOCK_T) == 0:
                largest = _largest(columns[0], ok, CFG)
                alive = tl.where(largest < LEAST, 0, tl.where((k * 4 >= tiles) & (largest > HOPEFUL), 2, 1))
    async_copy.wait_group(0)
    return columns, k, alive


@gluon.jit
def _store_zeros(matrix, channel, ok, CFG: tl.constexpr):
    """P of a chunk that forgets."""
    NUMBERS: tl.constexpr = CFG.M * CFG.CARRIED  # of a lane
    for i in tl.static_range(NUMBERS):
        tl.store(matrix + channel * NUMBERS + i, channel.to(tl.float32) * 0.0, mask=ok)


@gluon.jit
def _store(matrix, offset, columns, channel, own, ok, CFG: tl.constexpr):
    """P [N, M, M] row-major, from its columns or (REVERSE) rows, and the offset [N, M]."""
    m: tl.constexpr = CFG.M
    K: tl.constexpr = CFG.CARRIED
    block = (channel if CFG.HLRU else channel // m) * m
    for i in tl.static_range(K):
        entry = i if CFG.HLRU else own
        for c in tl.static_range(m):
            at = (block + c) * m + entry if CFG.REVERSE else (block + entry) * m + c
            tl.store(matrix + at, columns[c][i], mask=ok)
        tl.store(offset + block + entry, columns[m][i], mask=ok)


@gluon.jit(do_not_specialize=common.INTEGERS)
def hopper_chunk_summary(gates, inputs, matrices, offsets, memory_lengths, T, chunk, num_chunks, groups, gb, gt, gj,
                         vb, vt, CFG: tl.constexpr):  # fmt: skip
    """One program: NUM_WARPS x LANES lanes of one chunk. `inputs` are the values, or (REVERSE) the states' gradients;
    strides count units of VECTOR numbers; tiles of the bound are BOUND_BLOCK_T steps.
    matrices [B K, N, M, M], offsets [B K, N, M], memory_lengths [B K, H]: steps, or NEVER_FORGETS."""
    C: tl.constexpr = CFG.COLUMNS
    BOUND_BLOCK_T: tl.constexpr = CFG.BOUND_BLOCK_T
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (CFG.NUM_WARPS * CFG.LANES)
    row, start, end = common.sequence(gates, s, T, chunk, num_chunks, CFG)
    channel, ok, first, own = common.worker_lanes(c0, CFG)
    pointers, strides = (gates + row * gb * CFG.VECTOR, inputs + row * vb * CFG.VECTOR), (gt, gj, vt)
    bound_stages = common.allocate_stages(gates.dtype.element_ty, C + 1, BOUND_BLOCK_T, CFG)
    bound, k, alive = _walk(bound_stages, pointers, start, end, c0, strides, BOUND_BLOCK_T, True, CFG)
    tiles = tl.cdiv(end - start, BOUND_BLOCK_T)
    walked = end - start - (tiles - k) * BOUND_BLOCK_T if CFG.REVERSE else k * BOUND_BLOCK_T
    remembered = tl.where(alive == 0, walked, common.NEVER_FORGETS)
    tl.store(memory_lengths + s.to(tl.int64) * CFG.H + channel, remembered, mask=ok)
    mine = s.to(tl.int64) * CFG.H * CFG.CARRIED
    if alive == 0:
        _store_zeros(matrices + mine * CFG.M, channel, ok, CFG)
    else:
        smem_stages = common.allocate_stages(gates.dtype.element_ty, C + 1, CFG.BLOCK_T, CFG)
        columns, k, alive = _walk(smem_stages, pointers, start, end, c0, strides, CFG.BLOCK_T, False, CFG)
        _store(matrices + mine * CFG.M, offsets + mine, columns, channel, own, ok, CFG)
