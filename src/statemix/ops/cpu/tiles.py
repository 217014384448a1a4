"""Between memory and scratch: addresses as arrays, a tile's numbers to lines of scratch and back, and what a row of
gates does to the state.

Strides are those of (sequence, time, block, row, column), 0 where a tensor has fewer dimensions.
"""

# mypy: ignore-errors
from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from statemix.ops.cpu.numbers import compiled, load, store

BLOCKS_PER_ITEM = 64
"""Most blocks that a work item owns."""

WIDTH = 512
"""Most numbers in a line of scratch."""

EVERYTHING = 1 << 48
"""More numbers than any tensor has: the kernels stay inside by sizes and strides."""


@intrinsic
def _pointer(context, address, example):
    """An address as a pointer to numbers like those of an array."""
    kind = types.CPointer(example.dtype)

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(kind))

    return kind(address, example), generate


@compiled
def array_at(address, example):
    """The numbers from an address on, as an array like the example."""
    return carray(_pointer(address, example), EVERYTHING)


@compiled
def gather(source, strides, b, t0, n0, skip, steps, lanes, columns, f):
    """Line i * columns + j of f from row i and column j, but for `skip` steps, in the order of memory."""
    base = b * strides[0] + t0 * strides[1] + n0 * strides[2]
    lane_stride, rows = strides[2], f.shape[0] // columns
    for t in range(skip, steps):
        for i in range(rows):
            for j in range(columns):
                at = base + t * strides[1] + i * strides[3] + j * strides[4]
                target = f[i * columns + j, t * lanes : (t + 1) * lanes]
                if lane_stride == 1:
                    part = source[at : at + lanes]
                    for n in range(lanes):
                        target[n] = load(part[n])
                else:
                    for n in range(lanes):
                        target[n] = load(source[at + n * lane_stride])


@compiled
def scatter(f, target, first, blocks, n0, steps, lanes):
    """Lines of f to steps first, first + 1, … of a contiguous [B * T, lines, N], in the order of memory."""
    for t in range(steps):
        for k in range(f.shape[0]):
            at = ((first + t) * f.shape[0] + k) * blocks + n0
            source = f[k, t * lanes : (t + 1) * lanes]
            part = target[at : at + lanes]
            for n in range(lanes):
                part[n] = store(source[n], target)


@compiled
def copy(source, target, size):
    """Whole lines, number by number: an assignment of slices takes Numba seconds to compile."""
    for k in range(source.shape[0]):
        for n in range(size):
            target[k, n] = source[k, n]


@compiled
def lagged(states, strides, h0, s, b, blocks, n0, m, start, t0, lag, steps, lanes, f):
    """Line i of f from row i of the states `lag` steps before t0, t0 + 1, …; those before `start` are the entries
    i, i + 1, … of the carried state h0 [S, N, m]."""
    carried = min(max(start - (t0 - lag), 0), steps)
    for t in range(carried):
        for i in range(f.shape[0]):
            at = (s * blocks + n0) * m + i + start - 1 - (t0 + t - lag)
            for n in range(lanes):
                f[i, t * lanes + n] = h0[at + n * m]
    gather(states, strides, b, t0 - lag, n0, carried, steps, lanes, 1, f)


@compiled
def read_state(source, s, m, blocks, n0, lanes, target):
    """Lanes n0 ... of a state [S, N, m] into target [m, lanes]."""
    for i in range(m):
        at = (s * blocks + n0) * m + i
        for n in range(lanes):
            target[i, n] = source[at + n * m]


@compiled
def write_state(source, s, m, blocks, n0, lanes, target):
    """The reverse of `read_state`."""
    for i in range(m):
        at = (s * blocks + n0) * m + i
        for n in range(lanes):
            target[at + n * m] = source[i, n]


@compiled
def contract(f, first, at, u, value, inverse, gated, lanes, out):
    """out = (sum_j f_j u_j + f_last v) / S for one row at one step; `first` is the row's first line in f."""
    m = u.shape[0]
    v = value[at : at + lanes]
    if gated:
        a0 = f[first + m, at : at + lanes]
        for n in range(lanes):
            out[n] = a0[n] * v[n]
    else:
        for n in range(lanes):
            out[n] = v[n]
    for j in range(m):
        a, past = f[first + j, at : at + lanes], u[j]
        for n in range(lanes):
            out[n] += a[n] * past[n]
    scale = inverse[at : at + lanes]
    for n in range(lanes):
        out[n] *= scale[n]


@compiled
def scale_adjoint(r, inverse, carry, at, lanes):
    """r = (r + carry) / S at one step: the whole adjoint of a state component over its row's divisor."""
    target, scale = r[at : at + lanes], inverse[at : at + lanes]
    for n in range(lanes):
        target[n] = (target[n] + carry[n]) * scale[n]


@compiled
def spread_adjoint(f, first, at, r, adjoint, lanes):
    """adjoint_j += f_j r for one row at one step: what the row asks of the numbers it was contracted with."""
    for j in range(adjoint.shape[0]):
        a, target = f[first + j, at : at + lanes], adjoint[j]
        for n in range(lanes):
            target[n] += a[n] * r[n]


@compiled
def contract_line(f, u, value, inverse, gated, size, out):
    """`contract` for a whole line of steps whose past is known (the reverse pass): f is one row's lines."""
    m = u.shape[0]
    for n in range(size):
        out[n] = f[m, n] * value[n] if gated else value[n]
    for j in range(m):
        a, past = f[j], u[j]
        for n in range(size):
            out[n] += a[n] * past[n]
    for n in range(size):
        out[n] *= inverse[n]
