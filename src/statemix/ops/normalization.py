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

CODES = {name: code for code, name in enumerate(NORMALIZATIONS)}
"""The normalisations that the compiled kernels know, by the number they are told."""


def check_normalization(normalization: str) -> None:
    """ValueError unless it is a key of `NORMALIZATIONS`."""
    if normalization not in NORMALIZATIONS:
        known = ", ".join(map(repr, NORMALIZATIONS))
        raise ValueError(f"normalization: got {normalization!r}, expected one of {known}")


def normalize(gates: Tensor, normalization: str = "softmax") -> Tensor:
    r"""Normalise every row (last dimension) of raw gates, so that its absolute values sum to at most 1.

    $a_j = f(g_j) / \sum_k |f(g_k)|$ with f = exp ("softmax"), sigmoid, relu (plus 0.001 per entry in the divisor),
    tanh, the identity ("linear") or silu. "none" returns the gates and bounds nothing. Differentiable.

    Args:
        gates: [..., m+1], any float dtype.
        normalization: A key of `NORMALIZATIONS`.

    Returns:
        The same shape and dtype. A signed row (tanh, linear, silu) of exact zeros gives zeros, with zero gradient.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> normalize(torch.tensor([1.0, -3.0]), "linear")
        tensor([ 0.2500, -0.7500])

    Source: arXiv 2602.12021, the table of gate normalisations.
    """
    check_normalization(normalization)
    return NORMALIZATIONS[normalization](gates.to(state_dtype(gates.dtype))).to(gates.dtype)


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
    if normalization not in _VANISHING or not gates.shape[-1]:
        return gradient
    wide = gates.detach().to(state_dtype(gates.dtype))
    divisor = _VANISHING[normalization](wide).abs().sum(dim=-1, keepdim=True)
    least, largest = gradient_limits(gates.dtype)
    return torch.where(divisor < least, gradient.clamp(-largest, largest), gradient)
