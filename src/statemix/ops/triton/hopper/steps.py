"""One step of each recurrence, forward and backward, on the lanes of `hopper.common`.

Fused multiply-adds are written out and the compiler makes none of its own (`hopper.config`): a step rounds the same
way wherever it stands in a tile, so that the bits of a row depend neither on the launch nor on where time is cut.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon


@gluon.jit
def _mix(p, h, b, first, m: tl.constexpr):
    """b + sum_j p_j h_j with h_j from the lanes of the block; two chains of sums."""
    if m == 1:
        return tl.fma(p[0], h, b)
    else:
        even = tl.fma(p[0], tl.gather(h, first, 2), b)
        odd = p[1] * tl.gather(h, first + 1, 2)
        for j in tl.static_range(2, m, 2):
            even = tl.fma(p[j], tl.gather(h, first + j, 2), even)
        for j in tl.static_range(3, m, 2):
            odd = tl.fma(p[j], tl.gather(h, first + j, 2), odd)
        return even + odd


@gluon.jit
def _shift(p, window, b, m: tl.constexpr):
    """The next window: b + sum_i p_i window_i in front (the newest state's product last: only it is new)."""
    h = b
    for i in tl.static_range(1, m):
        h = tl.fma(p[m - i], window[m - i], h)
    moved = (tl.fma(p[0], window[0], h),)
    for i in tl.static_range(m - 1):
        moved = moved + (window[i],)
    return moved


@gluon.jit
def step(p, state, b, first, m: tl.constexpr, HLRU: tl.constexpr):
    """What a lane carries after one more step, whose input is b; its first number is the new state."""
    return _shift(p, state, b, m) if HLRU else (_mix(p, state[0], b, first, m),)


@gluon.jit
def _mix_back(rotated, adjoint, first, own, m: tl.constexpr):
    """carry_j = sum_i A[i, j] adjoint_i; two chains of sums."""
    if m == 1:
        return rotated[0] * adjoint
    else:
        even = rotated[0] * adjoint
        odd = tl.gather(rotated[1] * adjoint, first + (own + 1) % m, 2)
        for s in tl.static_range(2, m, 2):
            even += tl.gather(rotated[s] * adjoint, first + (own + s) % m, 2)
        for s in tl.static_range(3, m, 2):
            odd += tl.gather(rotated[s] * adjoint, first + (own + s) % m, 2)
        return even + odd


@gluon.jit
def _shift_back(p, adjoint, carry, m: tl.constexpr):
    """What the m steps before this one receive from it and from later ones."""
    moved = ()
    for i in tl.static_range(m - 1):
        moved = moved + (tl.fma(p[i], adjoint, carry[i + 1]),)
    return moved + (p[m - 1] * adjoint,)


@gluon.jit
def step_back(p, adjoint, carry, first, own, m: tl.constexpr, HLRU: tl.constexpr):
    """The carry after one more step back; p is rotated (`gate_norm.rotate`) unless HLRU."""
    return _shift_back(p, adjoint, carry, m) if HLRU else (_mix_back(p, adjoint, first, own, m),)
