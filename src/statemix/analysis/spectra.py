"""Eigenvalues of the transitions a trained model makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from statemix_research.baselines.lru import LRU
from torch import Tensor, nn

from statemix.analysis.accounting import entry_of, mixers
from statemix.nn import BDLRU, HLRU


def companion(coefficients: Tensor) -> Tensor:
    """Lag coefficients [..., m] (lag 1 first) -> companion matrices [..., m, m] of the window, newest first."""
    m = coefficients.shape[-1]
    shift = torch.eye(m, dtype=coefficients.dtype, device=coefficients.device)[:-1]
    shift = shift.expand(*coefficients.shape[:-1], m - 1, m)
    return torch.cat([coefficients.unsqueeze(-2), shift], dim=-2)


TRANSITIONS: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    BDLRU: lambda layer, x: layer.transitions(x),
    HLRU: lambda layer, x: companion(layer.coefficients(x)[..., :-1]),
    LRU: lambda layer, x: layer.transitions(x),
}
"""For each class of mixer, its transition matrices [B, T, N, m, m] on an input x [B, T, D]."""


@torch.no_grad()
def transition_eigenvalues(model: nn.Module, tokens: Tensor, *, max_matrices: int = 4096) -> list[Tensor]:
    """The eigenvalues of A_t while the model reads tokens [B, T], for every mixer that has small blocks.

    Returns one complex tensor [count, m] per mixer, in order; count = B·T·N, or `max_matrices` evenly spaced
    ones if that is less. H-LRU: those of its companion matrices. A matrix that is not finite has NaN for
    eigenvalues. Source: arXiv 2602.12021, figure 3.
    """
    if max_matrices < 1:
        raise ValueError(f"max_matrices: got {max_matrices}, expected at least 1")
    found = [mixer for mixer in mixers(model) if entry_of(TRANSITIONS, mixer)]
    inputs = inputs_of(model, found, tokens)
    return [
        _eigenvalues(_transitions(mixer, x), max_matrices) for mixer, x in zip(found, inputs, strict=True)
    ]


def inputs_of(model: nn.Module, parts: Sequence[nn.Module], tokens: Tensor) -> list[Tensor]:
    """What each of some modules is given while the model reads the tokens [B, T]."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        part.register_forward_pre_hook(lambda layer, arguments: seen.__setitem__(layer, arguments[0]))
        for part in parts
    ]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[part] for part in parts]


def _transitions(mixer: nn.Module, x: Tensor) -> Tensor:
    transitions = entry_of(TRANSITIONS, mixer)
    assert transitions is not None
    return transitions(mixer, x)


def _eigenvalues(matrices: Tensor, most: int) -> Tensor:
    """Eigenvalues [count, m] of matrices [..., m, m]."""
    flat = matrices.flatten(0, -3)
    if len(flat) > most:
        flat = flat[torch.linspace(0, len(flat) - 1, most, device=flat.device).round().long()]
    flat = flat.to("cpu", torch.float64)
    finite = flat.isfinite().flatten(1).all(1)  # LAPACK may crash the process on anything else
    values = torch.full(flat.shape[:-1], complex("nan+nanj"), dtype=torch.complex128)
    values[finite] = torch.linalg.eigvals(flat[finite])
    return values


REAL = 1e-3
"""An eigenvalue whose imaginary part is smaller counts as real, and one this near to zero has no sign."""


def spectrum_summary(eigenvalues: Sequence[Tensor]) -> dict[str, float]:
    """{"negative", "complex"}: shares of all finite eigenvalues that are real and negative, and that are not real.

    eigenvalues: complex tensors [count, m], one per mixer. Without any finite one both shares are 0.
    """
    values = torch.cat([one.flatten() for one in eigenvalues])
    values = values[values.isfinite()]
    turning = values.imag.abs() > REAL
    negative = ~turning & (values.real < -REAL)
    count = max(len(values), 1)
    return {"negative": float(negative.sum()) / count, "complex": float(turning.sum()) / count}
