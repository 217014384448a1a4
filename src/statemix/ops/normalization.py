"""The seven gate normalisations: how m+1 raw gates become m transition weights and one input gate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.ops.layout import state_dtype

RELU_EPSILON = 0.001
"""Added to every entry inside the divisor of the relu normalisation (m+1 of them in a row)."""


def _softmax(gates: Tensor) -> Tensor:
    return torch.softmax(gates, dim=-1)


def _scaled_sigmoid(gates: Tensor) -> Tensor:
    """sigmoid(g), each row times a constant that keeps its largest entry from underflowing; it cancels later."""
    shift = gates.amax(dim=-1, keepdim=True).clamp(max=0.0).detach()
    return torch.exp(F.logsigmoid(gates) - shift)


def _scaled_silu(gates: Tensor) -> Tensor:
    """silu(g), each row times a constant that brings its largest entry near one where that is below; it cancels later.

    The factor of g is taken in two halves, so that it may exceed the largest number where g is (almost) zero.
    """
    raw = gates.detach()
    sizes = raw.abs().log() + raw.clamp(max=0.0)  # log |silu(g)|, about
    top = sizes.amax(dim=-1, keepdim=True).clamp(max=0.0)
    shift = top.masked_fill(top == -torch.inf, 0.0)
    highest = 0.9 * math.log(torch.finfo(gates.dtype).max)
    half = torch.exp((0.5 * (F.logsigmoid(gates) - shift)).clamp(max=highest))
    return gates * half * half


def _small(dtype: torch.dtype) -> float:
    """The root of the smallest normal number: sums between it and its inverse are far from both ends."""
    return math.sqrt(torch.finfo(dtype).tiny)


def _by_sum(weights: Tensor, epsilon: float = 0.0) -> Tensor:
    """weights / (sum of |weights| + epsilon per entry) along each row; a row of zeros stays zeros.

    A row of very small or very large weights is taken times a power of two first, which cancels.
    """
    small, largest = _small(weights.dtype), weights.detach().abs().amax(dim=-1, keepdim=True)
    scale = torch.ones_like(largest)
    scale = scale.masked_fill(largest < small, 1 / small).masked_fill(largest > 1 / small, small)
    scaled = weights * scale
    divisor = scaled.abs().sum(dim=-1, keepdim=True) + epsilon * weights.shape[-1] * scale
    empty = divisor == 0
    return torch.where(empty, torch.zeros_like(weights), scaled / torch.where(empty, 1.0, divisor))


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": _softmax,
    "sigmoid": lambda gates: _by_sum(_scaled_sigmoid(gates)),
    "relu": lambda gates: _by_sum(torch.relu(gates), RELU_EPSILON),
    "tanh": lambda gates: _by_sum(torch.tanh(gates)),
    "linear": lambda gates: _by_sum(gates),
    "silu": lambda gates: _by_sum(_scaled_silu(gates)),
    "none": lambda gates: gates,
}
"""Every normalisation by name: a function of raw gates that normalises their last dimension, in float32 or float64.

Add your own with `NORMALIZATIONS["mine"] = function`; it runs on the reference backend. For the compiled kernels it
needs a code, a formula and a derivative as well: in `ops/cpu/gates.py` and in Triton's `gate_norm`.
"""

HARD = "hard:"
"""Before a name: the normalisation whose rows keep their largest weight alone. Operators are told both in one name."""

HARD_CODE = 8
"""Added to the code of a normalisation for hard rows."""

CODES = {name: code for code, name in enumerate(NORMALIZATIONS)}
"""The normalisations that the compiled kernels know, by the number they are told."""

CODES |= {HARD + name: code + HARD_CODE for name, code in CODES.items() if name != "none"}


def check_normalization(normalization: str) -> None:
    """ValueError unless it is a key of `NORMALIZATIONS`."""
    if normalization not in NORMALIZATIONS:
        known = ", ".join(map(repr, NORMALIZATIONS))
        raise ValueError(f"normalization: got {normalization!r}, expected one of {known}")


def normalization_key(normalization: str, hard: bool = False) -> str:
    """A normalisation as operators are told it: its name, behind `HARD` where rows are hard.

    TypeError unless `hard` is a bool; ValueError for an unknown name and for hard rows of "none".
    """
    check_normalization(normalization)
    if not isinstance(hard, bool):
        raise TypeError(f"hard: got {type(hard).__name__}, expected a bool")
    if hard and normalization == "none":
        raise ValueError("hard: got True with normalization 'none', expected one that bounds its rows")
    return HARD + normalization if hard else normalization


def normalize(gates: Tensor, normalization: str = "softmax", *, hard: bool = False) -> Tensor:
    r"""Normalise every row (last dimension) of raw gates, so that its absolute values sum to at most 1.

    $a_j = f(g_j) / \sum_k |f(g_k)|$ with f = exp ("softmax"), sigmoid, relu (plus 0.001 per entry in the divisor),
    tanh, the identity ("linear") or silu. "none" returns the gates and bounds nothing. Differentiable.

    A hard row is 1 at its largest weight and 0 elsewhere, -1 where that weight is negative. Of equal weights the first
    counts. Its derivative is that of the soft row (straight-through).

    Args:
        gates: [..., m+1], any float dtype.
        normalization: A key of `NORMALIZATIONS`.
        hard: Whether rows are hard.

    Returns:
        The same shape and dtype. A signed row (tanh, linear, silu) of exact zeros gives zeros, with zero gradient.

    Raises:
        TypeError: `hard` is no bool.
        ValueError: The name is unknown, or "none" came with `hard`.

    Example:
        >>> normalize(torch.tensor([1.0, -3.0]), "linear")
        tensor([ 0.2500, -0.7500])
        >>> normalize(torch.tensor([1.0, -3.0]), "linear", hard=True)
        tensor([ 0., -1.])

    Source: arXiv 2602.12021, the table of gate normalisations.
    """
    return normalize_rows(gates, normalization_key(normalization, hard))


def normalize_rows(gates: Tensor, key: str) -> Tensor:
    """`normalize` by a checked key, with "hard:" before the name or not."""
    wide, name = gates.to(state_dtype(gates.dtype)), key.removeprefix(HARD)
    soft = NORMALIZATIONS[name](wide)
    rows = soft if key == name else _largest_alone(wide, name, soft.detach()) + (soft - soft.detach())
    return rows.to(gates.dtype)


_MONOTONE = ("softmax", "sigmoid")
"""Normalisations whose largest weight is that of the largest gate."""


def _largest_alone(gates: Tensor, name: str, soft: Tensor) -> Tensor:
    """Rows with the sign of their largest weight there, zeros elsewhere.

    The largest is found before weights are rounded: gates that saturate are told apart.
    """
    weights = _UNSATURATED.get(name, lambda _: soft)(gates.detach())
    if not weights.shape[-1]:
        return weights
    index = (weights if name in _MONOTONE else weights.abs()).argmax(dim=-1, keepdim=True)
    sign = torch.ones_like(soft[..., :1]) if name in _MONOTONE else weights.gather(-1, index).sign()
    return torch.zeros_like(soft).scatter(-1, index, sign)


_UNSATURATED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda gates: gates,
    "sigmoid": lambda gates: gates,
    "relu": torch.relu,
    "tanh": lambda gates: gates,
    "linear": lambda gates: gates,
    "silu": _scaled_silu,
}
"""Functions of a row of gates in the order of its weights, those of zero at zero."""

_VANISHING: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "linear": lambda gates: gates,
    "silu": F.silu,
}
"""Weights before the division of the normalisations whose divisor may be close to zero."""


def gradient_limits(dtype: torch.dtype) -> tuple[float, float]:
    """The divisor of a row below which gradients of a dtype may overflow, and its largest number."""
    return max(_small(state_dtype(dtype)), torch.finfo(dtype).tiny), torch.finfo(dtype).max


def bounded_gradient(gradient: Tensor, gates: Tensor, normalization: str) -> Tensor:
    """The gradient of raw gates, at most the largest number of its dtype in rows whose divisor almost vanishes.

    Elsewhere an overflow is infinite, as usual: loss scaling looks for it.
    """
    name = normalization.removeprefix(HARD)
    if name not in _VANISHING or not gates.shape[-1]:
        return gradient
    wide = gates.detach().to(state_dtype(gates.dtype))
    divisor = _VANISHING[name](wide).abs().sum(dim=-1, keepdim=True)
    least, largest = gradient_limits(gates.dtype)
    return torch.where(divisor < least, gradient.clamp(-largest, largest), gradient)
