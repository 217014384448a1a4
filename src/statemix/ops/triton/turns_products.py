"""What a segment of time does to the state it begins with, on Hopper: a matrix and an offset, for long sequences.

A segment maps the state h at its start to P h + o. Forward, the m unit states and the zero state are walked through the
segment side by side: they end as the columns of P and as o. In reverse, the m unit carries are walked back and end as
the rows of P; the offset is the carry that the states' gradients alone leave at the start.

Gates that forget make P vanish long before the segment ends, and that is cheaper to see than P: the state of all ones
under the weights' absolute values bounds every row of P (reverse: column). It is walked first. Once all of it is below
LEAST, P counts as zero, the horizon tells how many steps still knew the state at the start, and the rest is left to
others (`split`). A bound that does not shrink in time is given up, and P and o are taken.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.rows import rotate, row_weights
from statemix.ops.triton.turns_common import (
    INTEGERS,
    WHOLE,
    fetch,
    lanes,
    read,
    read_gates,
    rings,
    sequence,
    tile,
)
from statemix.ops.triton.turns_steps import step, step_back

LEAST = tl.constexpr(2.0**-64)
"""A state of which less than this is left is forgotten: float64 rounds such a part of a sum away, and float32 does so
even where the states since then are 2**40 times smaller."""

HOPEFUL = tl.constexpr(2.0**-16)
"""What the bound must have shrunk to after a quarter of the segment, or it is given up: four times as much is LEAST."""

CHECKED = tl.constexpr(32)
"""About so many steps lie between two looks at the bound."""


@gluon.jit
def _unit(c: tl.constexpr, own, m: tl.constexpr, ORDER: tl.constexpr):
    """What lanes carry for unit state c (c = m: for the zero state)."""
    zero = own.to(tl.float32) * 0.0
    if ORDER:
        state = ()
        for i in tl.static_range(m):
            state = state + ((zero + 1.0 if i == c else zero),)
        return state
    else:
        return (tl.where(own == c, 1.0, zero),)


@gluon.jit
def _start(own, m: tl.constexpr, ORDER: tl.constexpr, BOUND: tl.constexpr):
    """What is walked: all ones (BOUND), or the m unit states and the zero state."""
    columns = ()
    if BOUND:
        one, state = own.to(tl.float32) * 0.0 + 1.0, ()
        for _i in tl.static_range(m if ORDER else 1):
            state = state + (one,)
        columns = (state,)
    else:
        for c in tl.static_range(m + 1):
            columns = columns + (_unit(c, own, m, ORDER),)
    return columns


@gluon.jit
def _advance(p, columns, drive, valid, first, own, m: tl.constexpr, ORDER: tl.constexpr, REVERSE: tl.constexpr,
             BOUND: tl.constexpr):  # fmt: skip
    """All columns one step on (back if REVERSE); as they were where the step is not one of the segment's."""
    K: tl.constexpr = m if ORDER else 1
    weights = ()
    for j in tl.static_range(m):
        weights = weights + ((tl.abs(p[j]) if BOUND else p[j]),)
    way = rotate(weights, own, m) if REVERSE and not ORDER else weights
    moved = ()
    for c in tl.static_range(1 if BOUND else m + 1):
        old = columns[c]
        driven = drive if c == m and not BOUND else drive * 0.0
        if REVERSE:
            new = step_back(way, old[0] + driven, old, first, own, m, ORDER)
        else:
            new = step(way, old, driven, first, m, ORDER)
        kept = ()
        for i in tl.static_range(K):
            kept = kept + (tl.where(valid, new[i], old[i]),)
        moved = moved + (kept,)
    return moved


@gluon.jit
def _largest(state, ok, G: tl.constexpr, K: tl.constexpr):
    """The largest number of a bound over all lanes; a NaN counts as infinite."""
    largest = state[0]
    for i in tl.static_range(1, K):
        largest = tl.where(state[i] <= largest, largest, state[i])
    largest = tl.where(ok, tl.where(largest < float("inf"), largest, float("inf")), 0.0)
    return gl.max(largest.reshape([G * 32]), 0)


@gluon.jit
def _walk(smem, inputs, start, end, c0, strides, H: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr,
          CODE: tl.constexpr, GATED: tl.constexpr, ORDER: tl.constexpr, REVERSE: tl.constexpr, G: tl.constexpr,
          U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr, BOUND: tl.constexpr):  # fmt: skip
    """Walk the bound until it has vanished or is given up, or all columns to the end: (columns, tiles walked, 1 if
    what was walked is still there)."""
    g, v = inputs
    gt, gj, vt = strides
    C: tl.constexpr = m + 1 if GATED else m
    K: tl.constexpr = m if ORDER else 1
    channel, ok, first, own = lanes(c0, H, m, LANES, G)
    when, source, inside = tile(c0, H, U, LANES, G, VEC)
    tiles = tl.cdiv(end - start, U)
    t0 = start + (tiles - 1) * U if REVERSE else start
    turn = -U if REVERSE else U
    g += t0.to(tl.int64) * gt * VEC
    v += t0.to(tl.int64) * vt * VEC
    dg, dv = gt.to(tl.int64) * VEC * turn, vt.to(tl.int64) * VEC * turn
    g_at, v_at = when * (gt * VEC) + source, when * (vt * VEC) + source
    plane = gj.to(tl.int64) * VEC
    ahead = t0
    for k in tl.static_range(S - 1):
        _fetch(smem, k, g + g_at, v + v_at, plane, inside & (ahead + when < end) & (ahead + when >= start), C)
        g += dg
        v += dv
        ahead += turn
    columns = _start(own, m, ORDER, BOUND)
    k, alive = 0, 1
    while (k < tiles) & (alive == 1):
        async_copy.wait_group(S - 2)
        mask = inside & (ahead + when < end) & (ahead + when >= start)
        _fetch(smem, (k + S - 1) % S, g + g_at, v + v_at, plane, mask, C)
        g += dg
        v += dv
        ahead += turn
        for n in tl.static_range(U):
            p, inverse = row_weights(
                read_gates(smem, k % S, U - 1 - n if REVERSE else n, C, G), CODE, C, True
            )
            value = read(smem[C], k % S, U - 1 - n if REVERSE else n, G)
            drive = p[m] * value if GATED and not REVERSE else value
            valid = t0 + (U - 1 - n if REVERSE else n) < end
            columns = _advance(p, columns, drive, valid, first, own, m, ORDER, REVERSE, BOUND)
        t0 += turn
        k += 1
        if BOUND:  # noqa: SIM102  (known at compilation)
            if k % (CHECKED // U) == 0:
                largest = _largest(columns[0], ok, G, K)
                alive = tl.where(largest < LEAST, 0, tl.where((k * 4 >= tiles) & (largest > HOPEFUL), 2, 1))
    async_copy.wait_group(0)
    return columns, k, alive


@gluon.jit
def _fetch(smem, slot, gates, drives, plane, mask, C: tl.constexpr):
    """One tile of gates and drives."""
    fetch(smem, slot, gates, C, plane, mask)
    async_copy.async_copy_global_to_shared(smem[C].index(slot), drives, mask=mask)
    async_copy.commit_group()


@gluon.jit
def _store_zeros(matrix, channel, ok, H: tl.constexpr, m: tl.constexpr, ORDER: tl.constexpr):
    """P of a segment that forgets."""
    numbers: tl.constexpr = m * m if ORDER else m  # of a lane
    for i in tl.static_range(numbers):
        tl.store(matrix + channel * numbers + i, channel.to(tl.float32) * 0.0, mask=ok)


@gluon.jit
def _store(matrix, offset, columns, channel, own, ok, m: tl.constexpr, ORDER: tl.constexpr,
           REVERSE: tl.constexpr):  # fmt: skip
    """P [N, m, m] row-major, from its columns or (REVERSE) rows, and the offset [N, m]."""
    WIDTH: tl.constexpr = m if ORDER else 1
    block = (channel if ORDER else channel // m) * m
    for i in tl.static_range(WIDTH):
        entry = i if ORDER else own
        for c in tl.static_range(m):
            at = (block + c) * m + entry if REVERSE else (block + entry) * m + c
            tl.store(matrix + at, columns[c][i], mask=ok)
        tl.store(offset + block + entry, columns[m][i], mask=ok)


@gluon.jit(do_not_specialize=INTEGERS)
def products(gates, drives, matrices, offsets, horizons, T, segment, segments, groups, gb, gt, gj, vb, vt,
             H: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr, CODE: tl.constexpr, GATED: tl.constexpr,
             ORDER: tl.constexpr, REVERSE: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr,
             LOOK: tl.constexpr, VEC: tl.constexpr):  # fmt: skip
    """One program: G x LANES lanes of one segment. `drives` are the values, or (REVERSE) the states' gradients; strides
    count units of VEC numbers; tiles of the bound are LOOK steps.
    matrices [B K, N, m, m], offsets [B K, N, m], horizons [B K, H]: steps, or WHOLE."""
    C: tl.constexpr = m + 1 if GATED else m
    WIDTH: tl.constexpr = m if ORDER else 1
    pid = tl.program_id(0)
    s = pid // groups
    c0 = pid % groups * (G * LANES)
    row, start, end = sequence(gates, s, T, segment, segments, False)
    channel, ok, first, own = lanes(c0, H, m, LANES, G)
    inputs, strides = (gates + row * gb * VEC, drives + row * vb * VEC), (gt, gj, vt)
    looked = rings(gates.dtype.element_ty, C + 1, S, LOOK * G * 32)
    bound, k, alive = _walk(looked, inputs, start, end, c0, strides, H, m, LANES, CODE, GATED, ORDER, REVERSE, G,
                            LOOK, S, VEC, True)  # fmt: skip
    tiles = tl.cdiv(end - start, LOOK)
    walked = end - start - (tiles - k) * LOOK if REVERSE else k * LOOK
    tl.store(horizons + s.to(tl.int64) * H + channel, tl.where(alive == 0, walked, WHOLE), mask=ok)
    mine = s.to(tl.int64) * H * WIDTH
    if alive == 0:
        _store_zeros(matrices + mine * m, channel, ok, H, m, ORDER)
    else:
        smem = rings(gates.dtype.element_ty, C + 1, S, U * G * 32)
        columns, k, alive = _walk(smem, inputs, start, end, c0, strides, H, m, LANES, CODE, GATED, ORDER, REVERSE, G,
                                  U, S, VEC, False)  # fmt: skip
        _store(matrices + mine * m, offsets + mine, columns, channel, own, ok, m, ORDER, REVERSE)
