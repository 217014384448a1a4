"""Raw gates to weights and the way back, one row at a time, on tuples of float32 tensors of any shape.

A row is a tuple of its m+1 raw gates (m for an affine recurrence). With f the weight of a gate, S the sum of |f| over
its row, u the numbers the row is contracted with and h = sum f u / S, the gradient of a raw gate is
lambda q (u - s h), where lambda is the adjoint of h, q = f' / S and s = |f|' / f'.

A hard row keeps its largest weight alone, as 1 or -1; all others are 0, or NaN in a row with a NaN. Its gradient is
that of the soft row with h = sum f u / S, which is not what the hard row makes of u. What concerns soft rows takes the
code of either.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from statemix.ops.normalization import CODES, HARD_CODE, RELU_EPSILON

SOFTMAX = tl.constexpr(CODES["softmax"])
SIGMOID = tl.constexpr(CODES["sigmoid"])
RELU = tl.constexpr(CODES["relu"])
TANH = tl.constexpr(CODES["tanh"])
LINEAR = tl.constexpr(CODES["linear"])
SILU = tl.constexpr(CODES["silu"])
NONE = tl.constexpr(CODES["none"])
HARD = tl.constexpr(HARD_CODE)
EPSILON = tl.constexpr(RELU_EPSILON)
LOG2E = tl.constexpr(1.4426950408889634)
TINY = tl.constexpr(2.0**-126)


@triton.constexpr_function
def soft_code(code):
    """The code of a normalisation's soft rows."""
    return code % HARD_CODE


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
def _top(x, COLUMNS: tl.constexpr, NAN: tl.constexpr):
    """The largest number of a row, or (NAN) NaN if one is."""
    top = x[0]
    for j in tl.static_range(1, COLUMNS):
        top = tl.maximum(top, x[j], propagate_nan=tl.PropagateNan.ALL if NAN else tl.PropagateNan.NONE)
    return top


@triton.jit
def _scaled_sigmoid(x, shift):
    """sigmoid(x) exp(-shift): a row's shift keeps its largest entry from underflowing and cancels in the quotient."""
    return _exp(tl.minimum(x, 0.0) - shift) / (1.0 + _exp(-tl.abs(x)))


@triton.jit
def row_shift(x, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """What is subtracted from a row before its exponentials."""
    SOFT: tl.constexpr = soft_code(CODE)
    if SOFT == SOFTMAX:
        shift = _top(x, COLUMNS, CODE >= HARD)
    elif SOFT == SIGMOID or SOFT == SILU:
        shift = tl.minimum(_top(x, COLUMNS, CODE >= HARD), 0.0)
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
def soft_weights(x, CODE: tl.constexpr, COLUMNS: tl.constexpr, FAST: tl.constexpr):
    """The weights f / S of a row of raw gates x (a tuple of COLUMNS float32 tensors), and 1 / S."""
    SOFT: tl.constexpr = soft_code(CODE)
    if SOFT == NONE:
        return x, x[0] * 0.0 + 1.0
    else:
        shift = row_shift(x, CODE, COLUMNS)
        f = ()
        for j in tl.static_range(COLUMNS):
            f = f + (_weight(x[j], shift, SOFT),)
        total = tl.abs(f[0])
        for j in tl.static_range(1, COLUMNS):
            total += tl.abs(f[j])
        if SOFT == RELU:
            total += EPSILON * COLUMNS
        if SOFT == SOFTMAX:
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
def unrounded(x, shift, CODE: tl.constexpr):
    """A number with the sign of f whose `size` orders a row as |f| does, and tells gates apart where f saturates."""
    SOFT: tl.constexpr = soft_code(CODE)
    return _weight(x, shift, SOFT) if SOFT == RELU or SOFT == SILU else x


@triton.jit
def size(f, CODE: tl.constexpr):
    """What the largest of a row is found by, of `unrounded` numbers."""
    SOFT: tl.constexpr = soft_code(CODE)
    return f if SOFT == SOFTMAX or SOFT == SIGMOID else tl.abs(f)


@triton.jit
def kept_weight(kept, top, CODE: tl.constexpr):
    """The weight of a hard row where its `unrounded` number is `kept`, of the largest size `top` (NaN if one is), and
    that of all other columns."""
    SOFT: tl.constexpr = soft_code(CODE)
    INFINITE: tl.constexpr = float("inf")
    nothing = top - top  # NaN if top is infinite or NaN
    finite = tl.where(top == INFINITE, 0.0, nothing)
    if SOFT == SOFTMAX:
        return 1.0 + nothing, nothing
    elif SOFT == SIGMOID:
        return 1.0 + finite, finite
    else:
        sign = tl.where(kept > 0, 1.0, tl.where(kept < 0, -1.0, 0.0))
        return sign + (finite if SOFT == TANH else nothing), finite


@triton.jit
def _largest(x, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """Of a row of raw gates: the sizes of its weights, the largest (NaN if one is), and a hard row's `kept_weight`.

    Where infinite gates become NaN and others 0 (relu, linear, silu), a hard row has NaN at the first of them alone.
    """
    shift, f, sizes = row_shift(x, CODE, COLUMNS), (), ()
    for j in tl.static_range(COLUMNS):
        f = f + (unrounded(x[j], shift, CODE),)
        sizes = sizes + (size(f[j], CODE),)
    top, kept = _top(sizes, COLUMNS, True), f[COLUMNS - 1]
    for back in tl.static_range(2, COLUMNS + 1):  # of equal sizes the first
        kept = tl.where(sizes[COLUMNS - back] == top, f[COLUMNS - back], kept)
    weight, rest = kept_weight(kept, top, CODE)
    return sizes, top, weight, rest


@triton.jit
def hard_weights(x, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """The weights of a hard row of raw gates: the first column of the largest size takes `left`, all others `rest`."""
    sizes, top, left, rest = _largest(x, CODE, COLUMNS)
    p = ()
    for j in tl.static_range(COLUMNS - 1):
        here = sizes[j] == top
        p = p + (tl.where(here, left, rest),)
        left = tl.where(here, rest, left)
    return p + (left,)


@triton.jit
def row_weights(x, CODE: tl.constexpr, COLUMNS: tl.constexpr, FAST: tl.constexpr):
    """The weights that a recurrence takes a row of raw gates for: soft or hard ones."""
    if CODE >= HARD:
        return hard_weights(x, CODE, COLUMNS)
    else:
        p, _ = soft_weights(x, CODE, COLUMNS, FAST)
        return p


@triton.jit
def gate_gradient(x, p, inverse, shift, adjoint, u, h, CODE: tl.constexpr):
    """The gradient of one raw gate x with soft weight p: adjoint q (u - s h). `shift` is `row_shift` of its row."""
    SOFT: tl.constexpr = soft_code(CODE)
    if SOFT == NONE:
        gradient = adjoint * u
    elif SOFT == SOFTMAX:
        gradient = adjoint * p * (u - h)
    elif SOFT == SIGMOID:
        e = _exp(-tl.abs(x))
        gradient = adjoint * p * (tl.where(x >= 0, e, 1.0) / (1.0 + e)) * (u - h)
    elif SOFT == RELU:
        gradient = tl.where(x <= 0, 0.0, adjoint * inverse * (u - h))
    else:
        if SOFT == TANH:
            f = _tanh(x)
            q = (1.0 - f * f) * inverse
        elif SOFT == LINEAR:
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


MAX_ROTATED = tl.constexpr(4)
"""The largest m whose hard weights are rotated like soft ones; of more it is faster to rotate the place of the one."""


@triton.jit
def _rotated_hard_weights(x, own, CODE: tl.constexpr, m: tl.constexpr):
    """Of a hard row of m + 1 raw gates the last weight, and the first m as `rotate` has them."""
    sizes, top, weight, rest = _largest(x, CODE, m + 1)
    column = m
    for back in tl.static_range(1, m + 1):
        column = tl.where(sizes[m - back] == top, m - back, column)
    place = tl.where(column == m, m, tl.where(own < column, own - column + m, own - column))
    turned = ()
    for s in tl.static_range(m):
        turned = turned + (tl.where(place == s, weight, rest),)
    return tl.where(column == m, weight, rest), turned


@triton.jit
def weights_back(
    x, soft, own, CODE: tl.constexpr, m: tl.constexpr, COLUMNS: tl.constexpr, HLRU: tl.constexpr
):
    """Of a row of raw gates x with soft weights `soft`, as a recurrence goes back through it: the weight of the value
    (the last one), and the weights of the m transition gates, rotated unless HLRU."""
    if CODE >= HARD and m > MAX_ROTATED and not HLRU:
        return _rotated_hard_weights(x, own, CODE, m)
    else:
        p = hard_weights(x, CODE, COLUMNS) if CODE >= HARD else soft
        return p[COLUMNS - 1], p[:m] if HLRU else rotate(p, own, m)
