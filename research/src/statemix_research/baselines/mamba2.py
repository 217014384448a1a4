"""Mamba-2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines import ssd
from statemix_research.baselines.base import Baseline, State, split_heads
from statemix_research.baselines.kernels import check_backend, run_operation
from statemix_research.baselines.modules import Decay, GatedNorm, ShortConvolution


class Mamba2(Baseline):
    """S_t = exp(-a Δ_t) S_{t-1} + k_t (Δ_t v_t)ᵀ, y_t = S_tᵀ q_t + D v_t, with a scalar decay per head.

    A short convolution over v, k and q; a gated RMS norm before the read-out; q and k are shared by the heads.
    x [B, T, dim] -> y [B, T, dim]; state: S [B, H, N, head_dim] with H = expand · dim / head_dim, N = state_dim, and
    the convolution's window. Source: arXiv 2405.21060.

    Args:
        dim: width of input and output.
        state_dim: N, numbers of q and k.
        expand: the inner width E is expand · dim.
        head_dim: channels of a head; divides E.
        conv_size: steps of the short convolution.
        backend: "auto", "loop", "chunks" or "kernel" (`kernels.run_operation`); the kernel is that of mamba_ssm where
            it is installed (`ssd`).
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
        inner, n = check_size("dim", dim) * check_size("expand", expand), check_size("state_dim", state_dim)
        heads, mixed = split_heads("head_dim", inner, head_dim), inner + 2 * n
        window = (check_size("conv_size", conv_size) - 1, mixed)
        super().__init__(dim, {"S": (heads, n, head_dim), "window": window})
        self.state_dim, self.inner_dim, self.heads, self.head_dim = n, inner, heads, head_dim
        self.conv_size, self.backend = conv_size, check_backend(backend)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.inputs = nn.Linear(dim, inner + mixed + heads, bias=False, **factory)
        self.convolution = ShortConvolution(mixed, conv_size, bias=True, **factory)
        self.decay = Decay(heads, rates=(1.0, 16.0), **factory)
        self.skip = nn.Parameter(torch.ones(heads, **factory))
        self.norm = GatedNorm(inner, gate_last=False, **factory)
        self.out = nn.Linear(inner, dim, bias=False, **factory)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        inner, n = self.inner_dim, self.state_dim
        gate, mixed, raw = self.inputs(x).split([inner, inner + 2 * n, self.heads], -1)
        mixed, window = self.convolution(mixed, state["window"])
        v, k, q = mixed.split([inner, n, n], -1)
        v = v.unflatten(-1, (self.heads, self.head_dim))  # [B, T, H, V]
        g, delta = self.decay(raw)
        if ssd.runs(self.backend, state["S"], x.shape[1]):
            y, after = ssd.scan(v, delta, -self.decay.log_rate.exp(), k, q, state["S"])
        else:
            q, k = (one.unsqueeze(-2).expand(-1, -1, self.heads, -1) for one in (q, k))
            tensors = {"q": q, "k": k, "v": v * delta.unsqueeze(-1).to(v.dtype), "g": g}
            y, after = run_operation("simple_gla", self.backend, state["S"], tensors)
        y = y + self.skip.unsqueeze(-1).to(y.dtype) * v.to(y.dtype)
        return self.out(self.norm(y.flatten(-2), gate)), {"S": after, "window": window}
