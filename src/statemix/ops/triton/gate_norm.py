"""Raw gates to weights and the way back, one row at a time, on tuples of float32 tensors of any shape.

A row is a tuple of its m+1 raw gates (m for an affine recurrence). With f the weight of a gate, S the sum of |f| over
its row, u the numbers the row is contracted with and h = sum f u / S, the gradient of a raw gate is
lambda q (u - s h), where lambda is the adjoint of h, q = f' / S and s = |f|' / f'.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.normalization import CODES, RELU_EPSILON

SOFTMAX = tl.constexpr(CODES["softmax"])
SIGMOID = tl.constexpr(CODES["sigmoid"])
RELU = tl.constexpr(CODES["relu"])
TANH = tl.constexpr(CODES["tanh"])
LINEAR = tl.constexpr(CODES["linear"])
SILU = tl.constexpr(CODES["silu"])
NONE = tl.constexpr(CODES["none"])
EPSILON = tl.constexpr(RELU_EPSILON)
LOG2E = tl.constexpr(1.4426950408889634)
TINY = tl.constexpr(2.0**-126)


@triton.jit
def _exp(x):
    return tl.exp2(x * LOG2E)


@triton.jit
def _tanh(x):
    """Odd polynomial near zero (relative error below 1e-7), exponentials elsewhere."""
    square = x * x
    series = -5.70498872745e-3 * square + 2.06390887954e-2
    series = series * square - 5.37397155531e-2
    series = series * square + 1.33314422036e-1
    series = series * square - 3.33332819422e-1
    small = x + x * square * series
    e = _exp(-2.0 * tl.abs(x))
    large = (1.0 - e) / (1.0 + e)
    large = tl.where(x < 0, -large, large)
    return tl.where(tl.abs(x) < 0.625, small, large)


@triton.jit
def _top(x, COLUMNS: tl.constexpr):
    top = x[0]
    for j in tl.static_range(1, COLUMNS):
        top = tl.maximum(top, x[j])
    return top


@triton.jit
def _scaled_sigmoid(x, shift):
    """sigmoid(x) exp(-shift): a row's shift keeps its largest entry from underflowing and cancels in the quotient."""
    return _exp(tl.minimum(x, 0.0) - shift) / (1.0 + _exp(-tl.abs(x)))


@triton.jit
def row_shift(x, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """What is subtracted from a row before its exponentials."""
    if CODE == SOFTMAX:
        shift = _top(x, COLUMNS)
    elif CODE == SIGMOID or CODE == SILU:
        shift = tl.minimum(_top(x, COLUMNS), 0.0)
    else:
        shift = x[0] * 0.0
    return shift


@triton.jit
def _weight(x, shift, CODE: tl.constexpr):
    if CODE == SOFTMAX:
        f = tl.exp2(tl.fma(x, LOG2E, -shift * LOG2E))
    elif CODE == SIGMOID:
        f = _scaled_sigmoid(x, shift)
    elif CODE == SILU:
        f = x * _scaled_sigmoid(x, shift)
    elif CODE == RELU:
        f = tl.where(x <= 0, 0.0, x)
    elif CODE == TANH:
        f = _tanh(x)
    else:
        f = x
    return f


@triton.jit
def _reciprocal(x, FAST: tl.constexpr):
    """1 / x; FAST is three instructions of NVIDIA's, for x well inside the normal numbers."""
    if FAST:
        y = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
        # One Newton step: a bias in the last bit would add up over steps that forget little.
        y = tl.fma(y, tl.fma(-x, y, 1.0), y)
    else:
        y = 1.0 / x
    return y


@triton.jit
def row_weights(x, CODE: tl.constexpr, COLUMNS: tl.constexpr, FAST: tl.constexpr):
    """The weights f / S of a row of raw gates x (a tuple of COLUMNS float32 tensors), and 1 / S."""
    if CODE == NONE:
        return x, x[0] * 0.0 + 1.0
    else:
        shift = row_shift(x, CODE, COLUMNS)
        f = ()
        for j in tl.static_range(COLUMNS):
            f = f + (_weight(x[j], shift, CODE),)
        total = tl.abs(f[0])
        for j in tl.static_range(1, COLUMNS):
            total += tl.abs(f[j])
        if CODE == RELU:
            total += EPSILON * COLUMNS
        if CODE == SOFTMAX:
            inverse = _reciprocal(total, FAST)
        else:
            inverse = tl.where(
                total == 0, 0.0, 1.0 / tl.maximum(total, TINY, propagate_nan=tl.PropagateNan.ALL)
            )
        p = ()
        for j in tl.static_range(COLUMNS):
            p = p + (f[j] * inverse,)
        return p, inverse


@triton.jit
def gate_gradient(x, p, inverse, shift, adjoint, u, h, CODE: tl.constexpr):
    """The gradient of one raw gate x with weight p: adjoint q (u - s h). `shift` is `row_shift` of its row."""
    if CODE == NONE:
        gradient = adjoint * u
    elif CODE == SOFTMAX:
        gradient = adjoint * p * (u - h)
    elif CODE == SIGMOID:
        e = _exp(-tl.abs(x))
        gradient = adjoint * p * (tl.where(x >= 0, e, 1.0) / (1.0 + e)) * (u - h)
    elif CODE == RELU:
        gradient = tl.where(x <= 0, 0.0, adjoint * inverse * (u - h))
    else:
        if CODE == TANH:
            f = _tanh(x)
            q = (1.0 - f * f) * inverse
        elif CODE == LINEAR:
            q = inverse
        else:
            e = _exp(-tl.abs(x))
            rest = tl.where(x >= 0, e, 1.0) / (1.0 + e)
            q = _scaled_sigmoid(x, shift) * (1.0 + x * rest) * inverse
        signed = tl.where(x > 0, h, tl.where(x < 0, -h, 0.0))
        gradient = adjoint * q * (u - signed)
    return gradient


@triton.jit
def rotate(row, own, m: tl.constexpr):
    """Register s of the result is row[(own - s) mod m]; `own` (0 … m-1) may differ by lane."""
    turned = ()
    for s in tl.static_range(m):
        turned = turned + (row[(m - s) % m],)
    for bit in tl.static_range(5):
        if (1 << bit) < m:
            here = (own & (1 << bit)) != 0
            before = turned
            turned = ()
            for s in tl.static_range(m):
                turned = turned + (tl.where(here, before[(s + m - (1 << bit)) % m], before[s]),)
    return turned
