"""The complex diagonal linear recurrent unit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_backend, check_size
from statemix.ops import affine_scan
from statemix_research.baselines.base import Baseline, State
from statemix_research.baselines.modules import rotation

LEAST_DECAY = 1e-6
"""-log |λ| is at least this, so that |λ| < 1 in float32 too."""


class LRU(Baseline):
    """h_t = λ ⊙ h_{t-1} + γ ⊙ B x_t, y_t = Re(C h_t) + D x_t with complex λ = exp(-exp(ν) + i θ), |λ| < 1.

    λ is the same at every step. A complex number is a 2 × 2 block of `affine_scan`.
    x [B, T, dim] -> y [B, T, dim]; state [B, 2 N]. Parameters: 4 N dim + 3 N + dim. Source: arXiv 2303.06349.

    Args:
        dim: width of input and output.
        state_dim: N, complex numbers of the state; default `dim`.
        radius: range of the initial |λ|, uniform in area; γ starts at √(1 - |λ|²).
        max_phase: the initial phase is uniform in [0, max_phase).
        backend: that of `affine_scan`.
    """

    def __init__(
        self,
        dim: int,
        *,
        state_dim: int | None = None,
        radius: tuple[float, float] = (0.5, 0.99),
        max_phase: float = 2 * math.pi,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        n = dim if state_dim is None else check_size("state_dim", state_dim)
        if len(radius) != 2 or not 0 <= radius[0] <= radius[1] < 1:
            raise ValueError(f"radius: got {radius!r}, expected two numbers from 0 to below 1, ascending")
        super().__init__(dim, {"h": (n, 2)})
        self.state_dim, self.radius, self.max_phase = n, tuple(radius), max_phase
        self.backend = check_backend(backend)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.log_decay, self.phase, self.log_scale = (
            nn.Parameter(torch.empty(n, **factory)) for _ in range(3)
        )
        self.skip = nn.Parameter(torch.ones(dim, **factory))
        self.inputs = nn.Linear(dim, 2 * n, bias=False, **factory)
        self.out = nn.Linear(2 * n, dim, bias=False, **factory)
        with torch.no_grad():
            low, high = (r * r for r in radius)
            area = self.log_decay.uniform_(max(low, 1e-8), max(high, 2e-8))  # |λ|²
            self.log_scale.copy_(0.5 * torch.log1p(-area))
            self.log_decay.copy_((-0.5 * area.log()).log())
            self.phase.uniform_(0.0, max_phase)

    def eigenvalues(self) -> Tensor:
        """λ as (real, imaginary): [N, 2], at least float32, |λ| < 1."""
        dtype = torch.promote_types(self.phase.dtype, torch.float32)
        size, phase = (-self.log_decay.to(dtype).exp().clamp(min=LEAST_DECAY)).exp(), self.phase.to(dtype)
        return size.unsqueeze(-1) * torch.stack([phase.cos(), phase.sin()], -1)

    def transitions(self, x: Tensor) -> Tensor:
        """x [B, T, dim] -> the transition matrices [B, T, N, 2, 2], which do not depend on it."""
        return rotation(self.eigenvalues()).expand(*x.shape[:-1], -1, -1, -1)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        eigenvalues = self.eigenvalues()
        inputs = self.inputs(x).unflatten(-1, (self.state_dim, 2)).to(eigenvalues.dtype)
        inputs = self.log_scale.to(eigenvalues.dtype).exp().unsqueeze(-1) * inputs
        states, last = complex_scan(eigenvalues, inputs, state["h"], self.backend)
        y = self.out(states.to(self.dtype).flatten(-2))
        return y + self.skip.to(y.dtype) * x.to(y.dtype), {"h": last}


def complex_scan(
    eigenvalues: Tensor, inputs: Tensor, initial_state: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """h_t = λ h_{t-1} + b_t: eigenvalues [N, 2], inputs [B, T, N, 2], initial_state [B, N, 2] -> (states, last state).

    Numbers are (real, imaginary) pairs.
    """
    transitions = rotation(eigenvalues).expand(*inputs.shape, 2)  # [B, T, N, 2, 2]
    with torch.autocast(inputs.device.type, enabled=False):
        return affine_scan(transitions, inputs, initial_state.to(inputs.dtype), backend=backend)
