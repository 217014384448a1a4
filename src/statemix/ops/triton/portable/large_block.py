"""BD-LRU and affine recurrences for blocks too large for registers, in plain Triton: any m up to 1024, in no hurry.

A program walks one block. Columns lie along the first axis of a tile, in registers, and rows along the second, as
lanes; the input gates stand apart. Sizes that are no powers of two are masked.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import (
    EPSILON,
    HARD,
    NONE,
    RELU,
    TINY,
    _weight,
    gate_gradient,
    kept_weight,
    row_shift,
    size,
    soft_code,
    unrounded,
)
from statemix.ops.triton.portable.common import decode, kernel, rows_at, span, state_at, store


@triton.jit
def soft_tile(x, last, inside, NORM: tl.constexpr, COLUMNS: tl.constexpr):
    """Soft weights of rows of raw gates: x [C, R] where `inside`, input gates last [R]; 1 / S and the shift, [R]."""
    SOFT: tl.constexpr = soft_code(NORM)
    shift = _tile_shift(x, last, inside, NORM)
    if SOFT == NONE:
        return x, last, shift * 0.0 + 1.0, shift
    else:
        f, f_last = tl.where(inside, _weight(x, shift[None, :], SOFT), 0.0), _weight(last, shift, SOFT)
        total = tl.sum(tl.abs(f), 0) + tl.abs(f_last)
        if SOFT == RELU:
            total += EPSILON * COLUMNS
        inverse = tl.where(total == 0, 0.0, 1.0 / tl.maximum(total, TINY, propagate_nan=tl.PropagateNan.ALL))
        return f * inverse[None, :], f_last * inverse, inverse, shift


@triton.jit
def _tile_shift(x, last, inside, NORM: tl.constexpr):
    return row_shift((last, tl.max(tl.where(inside, x, float("-inf")), 0)), NORM, 2)


@triton.jit
def hard_tile(x, last, column, inside, NORM: tl.constexpr):
    """Hard weights of the same rows; `column` is the place in its row of every gate of x."""
    shift, column = _tile_shift(x, last, inside, NORM), column.to(tl.int32)
    f, f_last = unrounded(x, shift[None, :], NORM), unrounded(last, shift, NORM)
    sizes = tl.where(inside, size(f, NORM), float("-inf"))
    top = tl.maximum(tl.max(sizes, 0), size(f_last, NORM), propagate_nan=tl.PropagateNan.ALL)
    top = tl.where(tl.max((sizes != sizes).to(tl.int32), 0) == 1, float("nan"), top)
    NOWHERE: tl.constexpr = 1 << 30
    first = tl.min(tl.where(sizes == top[None, :], column, NOWHERE), 0)
    here = inside & (column == first[None, :])
    kept = tl.where(first == NOWHERE, f_last, tl.sum(tl.where(here, f, 0.0), 0))
    weight, rest = kept_weight(kept, top, NORM)
    p = tl.where(here, weight[None, :], tl.where(inside, rest[None, :], 0.0))
    return p, tl.where(first == NOWHERE, weight, rest)


@triton.jit
def tile_weights(x, last, column, inside, NORM: tl.constexpr, COLUMNS: tl.constexpr):
    """The weights that a recurrence takes rows of raw gates for: x [C, R] where `inside`, input gates last [R]."""
    if NORM >= HARD:
        return hard_tile(x, last, column, inside, NORM)
    else:
        p, p_last, _, _ = soft_tile(x, last, inside, NORM, COLUMNS)
        return p, p_last


@triton.jit
def tile_slopes(x, last, inside, u, value, NORM: tl.constexpr, COLUMNS: tl.constexpr):
    """How h [R] changes with each raw gate: x [C, R], last [R]. u has the shape of x or [C, 1]. And soft weights."""
    p, p_last, inverse, shift = soft_tile(x, last, inside, NORM, COLUMNS)
    h = tl.sum(p * u, 0) + p_last * value
    slopes = gate_gradient(x, p, inverse[None, :], shift[None, :], 1.0, u, h[None, :], NORM)
    return slopes, gate_gradient(last, p_last, inverse, shift, 1.0, value, h, NORM), (p, p_last)


@triton.jit
def load(at, mask):
    """Numbers as float32, zero where masked."""
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _rows(g, gs, v, vs, t, i, live, M: tl.constexpr, COLUMNS: tl.constexpr):
    """A step's gates [C, R], input gates and values [R]; an affine recurrence takes its inputs as they are."""
    at = g + t * gs[1]
    x = load(at[None, :] + i[:, None] * gs[4], live[:, None] & live[None, :])
    value = load(v + t * vs[1], live)
    gate = load(at + gs[4] * M, live) if COLUMNS > M else tl.full(value.shape, 1.0, tl.float32)
    return x, gate, value


@kernel
def large_block_forward(
    g, v, initial, states, final, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """Arguments as for `small_forward`."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs, ins, ss, fs = decode(strides)
    work = tl.program_id(0) // N
    n = (tl.program_id(0) % N).to(tl.int64)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    i = tl.arange(0, SIZE).to(tl.int64)
    live = i < M
    inside = live[:, None] & live[None, :]
    g, v, states = rows_at((g, v, states), (gs[:4], vs, ss), row, 0, n, i)
    h = load(state_at(initial, ins, work.to(tl.int64), n, i), live)
    for t in range(start, end):
        x, gate, value = _rows(g, gs, v, vs, t, i, live, M, COLUMNS)
        p, p_last = tile_weights(x, gate, i[:, None], inside, CFG.NORM, COLUMNS)
        h = tl.sum(p * h[:, None], 0) + p_last * value
        store(states + t * ss[1], h, live)
    store(state_at(final, fs, sequence, n, i), h, live & (end == last))


@kernel
def large_block_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, bounds, strides, T, N, chunk, num_chunks, CFG: tl.constexpr
):  # fmt: skip
    """The reverse pass of `large_block_forward`."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    SIZE: tl.constexpr = CFG.SIZE
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    work = tl.program_id(0) // N
    n = (tl.program_id(0) % N).to(tl.int64)
    row, sequence, first, start, end, last = span(bounds, work, T, chunk, num_chunks)
    i = tl.arange(0, SIZE).to(tl.int64)
    live = i < M
    inside = live[:, None] & live[None, :]
    g, v, states, grad, dg, dv = rows_at(
        (g, v, states, grad, dg, dv), (gs[:4], vs, ss, ds, dgs[:4], dvs), row, 0, n, i
    )
    begin = load(state_at(initial, ins, sequence, n, i), live)
    carry = load(state_at(dfinal, dfs, work.to(tl.int64), n, i), live)
    for done in range(0, end - start):
        t = end - 1 - done
        x, gate, value = _rows(g, gs, v, vs, t, i, live, M, COLUMNS)
        u = tl.where(t > first, load(states + (t - 1) * ss[1], live & (t > first)), begin)
        slopes, slope, soft = tile_slopes(x, gate, inside, u[:, None], value, CFG.NORM, COLUMNS)
        p, p_last = hard_tile(x, gate, i[:, None], inside, CFG.NORM) if CFG.NORM >= HARD else soft
        adjoint = carry + load(grad + t * ds[1], live)
        carry = tl.sum(p * adjoint[None, :], 1)
        at = dg + t * dgs[1]
        store(at[None, :] + i[:, None] * dgs[4], adjoint[None, :] * slopes, inside)
        if COLUMNS > M:
            store(at + dgs[4] * M, adjoint * slope, live)
        store(dv + t * dvs[1], adjoint * p_last, live)
    store(state_at(dinitial, dis, sequence, n, i), carry, live & (start == first))
