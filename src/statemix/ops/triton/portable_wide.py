"""BD-LRU and affine recurrences for blocks too large for registers, in plain Triton: any m up to 1024, in no hurry.

A program walks one block. Columns lie along the first axis of a tile, in registers, and rows along the second, as
lanes; the input gates stand apart. Sizes that are no powers of two are masked.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.triton.portable_parts import decode, kernel, span, store
from statemix.ops.triton.rows import EPSILON, NONE, RELU, TINY, _weight, gate_gradient, row_shift


@triton.jit
def tile_weights(x, last, inside, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """Weights of rows of raw gates: x [C, R] where `inside`, input gates last [R]. Also 1 / S and the shift, [R]."""
    shift = row_shift((last, tl.max(tl.where(inside, x, float("-inf")), 0)), CODE, 2)
    if CODE == NONE:
        return x, last, shift * 0.0 + 1.0, shift
    else:
        f, f_last = tl.where(inside, _weight(x, shift[None, :], CODE), 0.0), _weight(last, shift, CODE)
        total = tl.sum(tl.abs(f), 0) + tl.abs(f_last)
        if CODE == RELU:
            total += EPSILON * COLUMNS
        inverse = tl.where(total == 0, 0.0, 1.0 / tl.maximum(total, TINY, propagate_nan=tl.PropagateNan.ALL))
        return f * inverse[None, :], f_last * inverse, inverse, shift


@triton.jit
def tile_slopes(x, last, p, p_last, inverse, shift, u, value, h, CODE: tl.constexpr):
    """How h [R] changes with each raw gate: x [C, R], last [R]. u has the shape of x or [C, 1]."""
    slopes = gate_gradient(x, p, inverse[None, :], shift[None, :], 1.0, u, h[None, :], CODE)
    return slopes, gate_gradient(last, p_last, inverse, shift, 1.0, value, h, CODE)


@triton.jit
def load(at, mask):
    """Numbers as float32, zero where masked."""
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def column(at, stride, j):
    """Column j of the rows at `at`."""
    return at + stride * j


@triton.jit
def _rows(g, gs, v, vs, t, i, live, M: tl.constexpr, COLUMNS: tl.constexpr):
    """A step's gates [C, R], input gates and values [R]; an affine recurrence takes its inputs as they are."""
    at = g + t * gs[1]
    x = load(at[None, :] + i[:, None] * gs[4], live[:, None] & live[None, :])
    value = load(v + t * vs[1], live)
    gate = load(column(at, gs[4], M), live) if COLUMNS > M else tl.full(value.shape, 1.0, tl.float32)
    return x, gate, value


@kernel
def wide_forward(
    g, v, initial, states, final, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Arguments as for `block_forward`."""
    gs, vs, ins, ss, fs = decode(strides)
    work = tl.program_id(0) // N
    n = (tl.program_id(0) % N).to(tl.int64)
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    i = tl.arange(0, SIZE).to(tl.int64)
    live = i < M
    inside = live[:, None] & live[None, :]
    g += row * gs[0] + n * gs[2] + i * gs[3]
    v += row * vs[0] + n * vs[2] + i * vs[3]
    states += row * ss[0] + n * ss[2] + i * ss[3]
    h = load(initial + work.to(tl.int64) * ins[0] + n * ins[1] + i * ins[2], live)
    for t in range(start, end):
        x, gate, value = _rows(g, gs, v, vs, t, i, live, M, COLUMNS)
        p, p_last, inverse, shift = tile_weights(x, gate, inside, CODE, COLUMNS)
        h = tl.sum(p * h[:, None], 0) + p_last * value
        store(states + t * ss[1], h, live)
    store(final + sequence * fs[0] + n * fs[1] + i * fs[2], h, live & (end == last))


@kernel
def wide_backward(
    g, v, states, initial, grad, dfinal, dg, dv, dinitial, strides, bounds, T, N, segment, segments,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """The reverse pass of `wide_forward`."""
    gs, vs, ss, ins, ds, dfs, dgs, dvs, dis = decode(strides)
    work = tl.program_id(0) // N
    n = (tl.program_id(0) % N).to(tl.int64)
    row, sequence, first, start, end, last = span(bounds, work, T, segment, segments)
    i = tl.arange(0, SIZE).to(tl.int64)
    live = i < M
    inside = live[:, None] & live[None, :]
    g += row * gs[0] + n * gs[2] + i * gs[3]
    v += row * vs[0] + n * vs[2] + i * vs[3]
    states += row * ss[0] + n * ss[2] + i * ss[3]
    grad += row * ds[0] + n * ds[2] + i * ds[3]
    dg += row * dgs[0] + n * dgs[2] + i * dgs[3]
    dv += row * dvs[0] + n * dvs[2] + i * dvs[3]
    begin = load(initial + sequence * ins[0] + n * ins[1] + i * ins[2], live)
    carry = load(dfinal + work.to(tl.int64) * dfs[0] + n * dfs[1] + i * dfs[2], live)
    for done in range(0, end - start):
        t = end - 1 - done
        x, gate, value = _rows(g, gs, v, vs, t, i, live, M, COLUMNS)
        p, p_last, inverse, shift = tile_weights(x, gate, inside, CODE, COLUMNS)
        u = tl.where(t > first, load(states + (t - 1) * ss[1], live & (t > first)), begin)
        h = tl.sum(p * u[:, None], 0) + p_last * value
        slopes, slope = tile_slopes(x, gate, p, p_last, inverse, shift, u[:, None], value, h, CODE)
        adjoint = carry + load(grad + t * ds[1], live)
        carry = tl.sum(p * adjoint[None, :], 1)
        at = dg + t * dgs[1]
        store(at[None, :] + i[:, None] * dgs[4], adjoint[None, :] * slopes, inside)
        if COLUMNS > M:
            store(column(at, dgs[4], M), adjoint * slope, live)
        store(dv + t * dvs[1], adjoint * p_last, live)
    store(dinitial + sequence * dis[0] + n * dis[1] + i * dis[2], carry, live & (start == first))
