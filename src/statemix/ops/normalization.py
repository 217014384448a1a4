"""The seven gate normalisations: how m+1 raw gates become m transition weights and one input gate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RELU_EPSILON = 0.001
"""Added to every entry inside the divisor of the relu normalisation (m+1 of them in a row)."""


def _softmax(gates: Tensor) -> Tensor:
    return torch.softmax(gates, dim=-1)


def _scaled_sigmoid(gates: Tensor) -> Tensor:
    """sigmoid(g), each row times a constant that keeps its largest entry from underflowing; it cancels later."""
    shift = gates.amax(dim=-1, keepdim=True).clamp(max=0.0).detach()
    return torch.exp(F.logsigmoid(gates) - shift)


def _by_sum(weights: Tensor, epsilon: float = 0.0) -> Tensor:
    """weights / (sum of |weights| + epsilon per entry) along each row; a row of zeros stays zeros."""
    divisor = weights.abs().sum(dim=-1, keepdim=True) + epsilon * weights.shape[-1]
    empty = divisor == 0
    return torch.where(empty, torch.zeros_like(weights), weights / torch.where(empty, 1.0, divisor))


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": _softmax,
    "sigmoid": lambda gates: _by_sum(_scaled_sigmoid(gates)),
    "relu": lambda gates: _by_sum(torch.relu(gates), RELU_EPSILON),
    "tanh": lambda gates: _by_sum(torch.tanh(gates)),
    "linear": lambda gates: _by_sum(gates),
    "silu": lambda gates: _by_sum(gates * _scaled_sigmoid(gates)),
    "none": lambda gates: gates,
}
"""Every normalisation by name; the position in this table is its code in the compiled kernels."""


def normalize(gates: Tensor, normalization: str = "softmax") -> Tensor:
    """Normalise every row (last dimension) of raw gates, so that its absolute values sum to at most 1.

    gates: [..., m+1], any float dtype. Returns the same shape and dtype. Differentiable.
    A signed row (tanh, linear, silu) of exact zeros gives zeros, with zero gradient. "none" bounds nothing.
    Errors: ValueError for an unknown name. Source: arXiv 2602.12021, the table of gate normalisations.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization: got {normalization!r}, expected one of {', '.join(map(repr, NORMALIZATIONS))}"
        )
    return NORMALIZATIONS[normalization](gates)
