"""Eigenvalues of the transitions a trained model makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from statemix.analysis.accounting import mixers


def companion(coefficients: Tensor) -> Tensor:
    """Lag coefficients [..., m] (lag 1 first) -> companion matrices [..., m, m] of the window, newest first."""
    m = coefficients.shape[-1]
    shift = torch.eye(m, dtype=coefficients.dtype, device=coefficients.device)[:-1]
    shift = shift.expand(*coefficients.shape[:-1], m - 1, m)
    return torch.cat([coefficients.unsqueeze(-2), shift], dim=-2)


def has_transitions(mixer: nn.Module) -> bool:
    """Whether a mixer offers `transitions(x)` or `coefficients(x)`, which its eigenvalues are taken from."""
    return hasattr(mixer, "transitions") or hasattr(mixer, "coefficients")


@torch.no_grad()
def transition_eigenvalues(model: nn.Module, tokens: Tensor, *, max_matrices: int = 4096) -> list[Tensor]:
    """The eigenvalues of A_t while the model reads tokens [B, T], for every mixer that offers its transitions.

    A mixer offers them by a method `transitions(x [B, T, D]) -> A_t [B, T, N, m, m]`, or, for a scalar recurrence of
    order m, `coefficients(x) -> [B, T, N, m + 1]`: lags 1 … m, whose companion matrices are taken, and the input.

    Args:
        model: A model of token sequences.
        tokens: int64 [B, T].
        max_matrices: At most so many transitions of each mixer, evenly spaced.

    Returns:
        One complex tensor [count, m] per mixer, in order. A matrix that is not finite has NaN for eigenvalues.

    Source: arXiv 2602.12021, figure 3.
    """
    if max_matrices < 1:
        raise ValueError(f"max_matrices: got {max_matrices}, expected at least 1")
    found = [mixer for mixer in mixers(model) if has_transitions(mixer)]
    inputs = inputs_of(model, found, tokens)
    matrices = (_transitions(mixer, x) for mixer, x in zip(found, inputs, strict=True))
    return [_eigenvalues(one, max_matrices) for one in matrices]


def inputs_of(model: nn.Module, parts: Sequence[nn.Module], tokens: Tensor) -> list[Tensor]:
    """What each of some modules is given while the model reads the tokens [B, T]."""
    seen: dict[nn.Module, Tensor] = {}

    def keep(part: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen[part] = arguments[0]

    hooks = [part.register_forward_pre_hook(keep) for part in parts]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[part] for part in parts]


def _transitions(mixer: Any, x: Tensor) -> Tensor:
    if hasattr(mixer, "transitions"):
        return mixer.transitions(x)
    return companion(mixer.coefficients(x)[..., :-1])


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


MIN_PART = 1e-3
"""An eigenvalue with a smaller imaginary part counts as real, and one with a smaller real part as not negative."""


def spectrum_summary(eigenvalues: Sequence[Tensor]) -> dict[str, float]:
    """{"negative", "complex"}: shares of all finite eigenvalues that are real and negative, and that are not real.

    eigenvalues: complex tensors [count, m], one per mixer. Without any finite one both shares are 0.
    """
    values = torch.cat([one.flatten() for one in eigenvalues])
    values = values[values.isfinite()]
    is_complex = values.imag.abs() > MIN_PART
    negative = ~is_complex & (values.real < -MIN_PART)
    count = max(len(values), 1)
    return {"negative": float(negative.sum()) / count, "complex": float(is_complex.sum()) / count}
