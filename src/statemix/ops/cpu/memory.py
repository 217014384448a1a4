"""Between memory and scratch: addresses as arrays, a tile's numbers to lines of scratch, and gradients back."""

# mypy: ignore-errors
from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from statemix.ops.cpu.numbers import compiled, load, store

BLOCKS_PER_ITEM = 64
"""Most blocks that a work item owns."""

WIDTH = 256
"""Numbers in a line of scratch."""

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
def gather(source, base, step_stride, lane_stride, steps, lanes, line):
    """line[t * lanes + n] = source[base + t * step_stride + n * lane_stride]."""
    for t in range(steps):
        at = base + t * step_stride
        target = line[t * lanes : (t + 1) * lanes]
        if lane_stride == 1:
            part = source[at : at + lanes]
            for n in range(lanes):
                target[n] = load(part[n])
        else:
            for n in range(lanes):
                target[n] = load(source[at + n * lane_stride])


@compiled
def gather_rows(source, base, step_stride, lane_stride, row_stride, column_stride, steps, lanes, columns, f):
    """Line i * columns + j of f from row i and column j, in the order of memory (N innermost), so that it streams."""
    for t in range(steps):
        for k in range(f.shape[0]):
            at = base + t * step_stride + k // columns * row_stride + k % columns * column_stride
            target = f[k, t * lanes : (t + 1) * lanes]
            if lane_stride == 1:
                part = source[at : at + lanes]
                for n in range(lanes):
                    target[n] = load(part[n])
            else:
                for n in range(lanes):
                    target[n] = load(source[at + n * lane_stride])


@compiled
def copy(source, target, size):
    """Whole lines, number by number: an assignment of slices takes Numba seconds to compile."""
    for k in range(source.shape[0]):
        for n in range(size):
            target[k, n] = source[k, n]


@compiled
def scatter(f, target, base, step_stride, line_stride, steps, lanes):
    """target[base + t * step_stride + k * line_stride + n] = f[k, t * lanes + n], in the order of memory."""
    for t in range(steps):
        for k in range(f.shape[0]):
            at = base + t * step_stride + k * line_stride
            source = f[k, t * lanes : (t + 1) * lanes]
            part = target[at : at + lanes]
            for n in range(lanes):
                part[n] = store(source[n], target)


@compiled
def lagged(states, base, ss, h0, initial, m, start, t0, lag, steps, lanes, line):
    """The states `lag` steps before t0, t0 + 1, ...; before `start` they come from the carried state, whose
    entry k of lane n lies at initial + k + n * m and is the state k + 1 steps before `start`."""
    carried = min(max(start - (t0 - lag), 0), steps)
    for t in range(carried):
        at = initial + start - 1 - (t0 + t - lag)
        for n in range(lanes):
            line[t * lanes + n] = h0[at + n * m]
    at = base + (t0 + carried - lag) * ss[1]
    gather(states, at, ss[1], ss[2], steps - carried, lanes, line[carried * lanes :])


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
