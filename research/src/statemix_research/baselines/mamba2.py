"""Mamba-2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Parts, Rival, heads_of
from statemix_research.baselines.operations import check_backend, operate
from statemix_research.baselines.parts import Decay, GatedNorm, ShortConvolution


class Mamba2(Rival):
    """S_t = exp(-a Δ_t) S_{t-1} + k_t (Δ_t v_t)ᵀ, y_t = S_tᵀ q_t + D v_t, with a scalar decay per head.

    Inner width E = expand · dim in heads of `head_dim`; q and k of `state_dim` numbers are shared by the heads; a
    short convolution over v, k and q; a gated RMS norm before the read-out. State: E · state_dim, and the
    convolution's window. backend: see `statemix_research.baselines.operations.operate`. Source: arXiv 2405.21060.
    """

    def __init__(
        self,
        dim: int,
        *,
        state_dim: int = 64,
        expand: int = 2,
        head_dim: int = 64,
        conv_size: int = 4,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        inner, n, taps = check_size("expand", expand) * dim, check_size("state_dim", state_dim), conv_size
        heads = heads_of("head_dim", inner, head_dim)
        mixed = inner + 2 * n
        super().__init__(
            dim, {"S": (heads, n, head_dim), "window": (check_size("conv_size", taps) - 1, mixed)}
        )
        self.state_dim, self.inner_dim, self.heads, self.head_dim = n, inner, heads, head_dim
        self.conv_size, self.backend = conv_size, check_backend(backend)
        self.inputs = nn.Linear(dim, inner + mixed + heads, bias=False, device=device, dtype=dtype)
        self.convolution = ShortConvolution(mixed, taps, bias=True, device=device, dtype=dtype)
        self.decay = Decay(heads, rates=(1.0, 16.0), device=device, dtype=dtype)
        self.skip = nn.Parameter(torch.ones(heads, device=device, dtype=dtype))
        self.norm = GatedNorm(inner, after=False, device=device, dtype=dtype)
        self.out = nn.Linear(inner, dim, bias=False, device=device, dtype=dtype)

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        inner, n = self.inner_dim, self.state_dim
        gate, mixed, raw = self.inputs(x).split([inner, inner + 2 * n, self.heads], -1)
        mixed, window = self.convolution(mixed, state["window"])
        v, k, q = mixed.split([inner, n, n], -1)
        v = v.unflatten(-1, (self.heads, self.head_dim))  # [B, T, H, V]
        g, delta = self.decay(raw)
        shared = {
            name: one.unsqueeze(-2).expand(-1, -1, self.heads, -1) for name, one in (("q", q), ("k", k))
        }
        tensors = {**shared, "v": v * delta.unsqueeze(-1).to(v.dtype), "g": g}
        y, after = operate("simple_gla", self.backend, state["S"], tensors)
        y = y + self.skip.unsqueeze(-1).to(y.dtype) * v.to(y.dtype)
        return self.out(self.norm(y.flatten(-2), gate)), {"S": after, "window": window}
