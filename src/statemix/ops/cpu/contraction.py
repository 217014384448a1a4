"""What a row of gates does to the state, and what the reverse pass asks of it."""

# mypy: ignore-errors
from __future__ import annotations

from statemix.ops.cpu.numbers import compiled


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
