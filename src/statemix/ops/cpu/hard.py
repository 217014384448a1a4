"""Hard rows: which number each row copies, and the recurrence along the copies, forward and back.

The copied numbers of a tile lie in one flat scratch, `margin` numbers after its beginning: lines of states, then lines
of values. A place is the distance from the number of line 0 at a row's step to the number that the row copies. Column
j < m of a row has the place j * stride - lanes, which is one step back, its last column the place `last`. A stride is
the length of a line (BD-LRU) or a step back (H-LRU). What was before the tile lies in the margins of the lines.

A row is then one load, one product with its sign and one store, whatever m is. A tile with a number that is not finite
takes all columns, so that NaN and infinity spread as in the soft scan.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from statemix.ops.cpu.gates import LINEAR, RELU, SILU, TANH, all_weights, weights
from statemix.ops.cpu.numbers import compiled, in_order


@compiled
def are_finite(lines, size):
    """Whether the first `size` numbers of every line are finite."""
    zero = lines.dtype.type(0)
    total = zero
    for k in range(lines.shape[0]):
        line = lines[k]
        for n in range(size):
            total += line[n] * zero
    return total == zero


@compiled
def choose(code, f, stride, last, lanes, best, place, sign, size):
    """The places of a row's largest gates f [columns, size] (silu: weights), these gates (`best`) and, but for softmax
    and sigmoid, their signs.

    Returns whether all gates are finite; they are not changed.
    """
    zero, one, end = f.dtype.type(0), f.dtype.type(1), f.shape[0] - 1
    signed = code == TANH or code == LINEAR or code == SILU
    total = zero
    for j in range(1, end + 1):
        line, before, here = f[j], f[0], np.int32(j * stride - lanes if j < end else last)
        if j == 1 and signed:
            for n in range(size):
                x, top = line[n], before[n]
                best[n] = x if abs(x) > abs(top) else top
                place[n] = here if abs(x) > abs(top) else np.int32(-lanes)
                total += (x + top) * zero
        elif j == 1:
            for n in range(size):
                x, top = line[n], before[n]
                best[n] = x if x > top else top
                place[n] = here if x > top else np.int32(-lanes)
                total += (x + top) * zero
        elif signed:
            for n in range(size):
                x, top = line[n], best[n]
                best[n] = x if abs(x) > abs(top) else top
                place[n] = here if abs(x) > abs(top) else place[n]
                total += x * zero
        else:
            for n in range(size):
                x, top = line[n], best[n]
                best[n] = x if x > top else top
                place[n] = here if x > top else place[n]
                total += x * zero
    if signed or code == RELU:
        for n in range(size):
            sign[n] = one if best[n] > zero else (-one if best[n] < zero and signed else zero)
    return total == zero


@compiled
def put(state, flat, first, stride, lanes):
    """A state [m, lanes] to the margins before the number `first`."""
    for j in range(state.shape[0]):
        line, target = state[j], flat[first + j * stride - lanes : first + j * stride]
        for n in range(lanes):
            target[n] = line[n]


@compiled
def take(flat, first, stride, lanes, state):
    """The reverse of `put`."""
    for j in range(state.shape[0]):
        target, line = state[j], flat[first + j * stride - lanes : first + j * stride]
        for n in range(lanes):
            target[n] = line[n]


@compiled
def copy_forward(flat, first, i, at, place, sign, lanes, lines):
    """Row i at one step: what it copies, times its sign."""
    for n in range(lanes):
        p = np.uintp(at + n)
        lines[i, p] = sign[i, p] * flat[np.uintp(first + n + place[i, p])]


@compiled
def copy_back(flat, first, i, at, place, sign, inverse, lanes, lines, r):
    """The adjoint of row i at one step, whole: to that of what it copied, and over the row's divisor to r."""
    for n in range(lanes):
        p = np.uintp(at + n)
        s = r[i, p] + lines[i, p]
        flat[np.uintp(first + n + place[i, p])] += sign[i, p] * s
        r[i, p] = s * inverse[i, p]


@in_order
def _weight(f, inverse, here, place, sign):
    """One weight of a hard row: its sign or zero, NaN where the soft one is."""
    zero = f * 0
    return (sign if here == place else zero) + f * inverse * zero


@in_order
def spread_forward(flat, first, i, at, place, sign, inverse, f, stride, lanes, lines):
    """`copy_forward` of whole rows."""
    rows, width = place.shape[0], lines.shape[1]
    columns = f.shape[0] // rows
    for n in range(lanes):
        total = f.dtype.type(0)
        for j in range(columns):
            here = j * stride - lanes if j < columns - 1 else (rows + i) * width
            weight = _weight(
                f[i * columns + j, at + n], inverse[i, at + n], here, place[i, at + n], sign[i, at + n]
            )
            total += weight * flat[first + n + here]
        lines[i, at + n] = total


@in_order
def spread_back(flat, first, i, at, place, sign, inverse, f, stride, lanes, lines, r):
    """`copy_back` of whole rows."""
    rows, width = place.shape[0], lines.shape[1]
    columns = f.shape[0] // rows
    for n in range(lanes):
        s = r[i, at + n] + lines[i, at + n]
        for j in range(columns):
            here = j * stride - lanes if j < columns - 1 else (rows + i) * width
            weight = _weight(
                f[i * columns + j, at + n], inverse[i, at + n], here, place[i, at + n], sign[i, at + n]
            )
            flat[first + n + here] += weight * s
        r[i, at + n] = s * inverse[i, at + n]


@compiled
def hard_weights(code, f, raw, inverse, shift, scale, least, stride, last, lanes, best, place, sign, size):
    """`weights` and `choose` of a row: whether it has edges, whether all is finite."""
    if code == SILU:
        edge = weights(code, f, raw, inverse, shift, scale, least, size, False)
        return edge, choose(code, f, stride, last, lanes, best, place, sign, size)
    finite = choose(code, f, stride, last, lanes, shift, place, sign, size)
    return weights(code, f, raw, inverse, shift, scale, least, size, True), finite


@compiled
def hard_forward(code, f, raw, inverse, shift, scale, place, sign, flat, lines, stride, state, lanes, steps):
    """The states of a tile to the first lines, and `state` [m, lanes] to that of its last step."""
    rows, margin, size = place.shape[0], flat.size - lines.size, steps * lanes
    columns, width = f.shape[0] // rows, lines.shape[1]
    if code == SILU:
        all_weights(code, f, raw, inverse, shift, scale, size)
    finite = are_finite(lines[rows:], size) and are_finite(state, lanes)
    for i in range(rows):
        row, last = f[i * columns : (i + 1) * columns], (rows + i) * width
        finite = choose(code, row, stride, last, lanes, shift, place[i], sign[i], size) and finite
    if code != SILU and not finite:
        all_weights(code, f, raw, inverse, shift, scale, size)
    put(state, flat, margin, stride, lanes)
    for t in range(steps):
        at = t * lanes
        for i in range(rows):
            if finite:
                copy_forward(flat, margin + at, i, at, place, sign, lanes, lines)
            else:
                spread_forward(flat, margin + at, i, at, place, sign, inverse, f, stride, lanes, lines)
    take(flat, margin + size, stride, lanes, state)


@compiled
def hard_backward(finite, f, inverse, place, sign, flat, lines, stride, r, carry, lanes, steps):
    """The reverse: whole adjoints of a tile's states over their rows' divisors to r, of its values to the last lines,
    and `carry` [m, lanes] from what came after the tile to what goes before it."""
    rows, margin, size = place.shape[0], flat.size - lines.size, steps * lanes
    finite = are_finite(r, size) and are_finite(carry, lanes) and finite
    for n in range(flat.size):
        flat[n] = 0
    put(carry, flat, margin + size, stride, lanes)
    for t in range(steps - 1, -1, -1):
        at = t * lanes
        for i in range(rows):
            if finite:
                copy_back(flat, margin + at, i, at, place, sign, inverse, lanes, lines, r)
            else:
                spread_back(flat, margin + at, i, at, place, sign, inverse, f, stride, lanes, lines, r)
    take(flat, margin, stride, lanes, carry)
