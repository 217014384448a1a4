"""Parts that several rivals are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over the last `width` steps, then SiLU: x [B, T, C] -> [B, T, C].

    Its state is the window of the last width - 1 inputs, [B, width - 1, C].
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("conv_size", width)
        self.taps = nn.Conv1d(
            channels, channels, width, groups=channels, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, C], window [B, width - 1, C] -> (y [B, T, C], the window after it)."""
        seen = torch.cat([window.to(x.dtype), x], 1)  # [B, width - 1 + T, C]
        y = F.silu(self.taps(seen.transpose(1, 2))).transpose(1, 2)
        return y, seen[:, x.shape[1] :]


class GatedNorm(nn.Module):
    """RMS norm over the last dimension; the gate, through SiLU, multiplies before it or (`after`) after it."""

    def __init__(
        self,
        width: int,
        *,
        after: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm, self.after = nn.RMSNorm(width, eps=1e-5, device=device, dtype=dtype), after

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """x, gate [..., width] -> [..., width], in the dtype of the weight."""
        x, gate = x.to(self.norm.weight.dtype), F.silu(gate.to(self.norm.weight.dtype))
        return self.norm(x) * gate if self.after else self.norm(x * gate)


class HeadNorm(nn.Module):
    """Layer norm of each head on its own, with a weight and a bias: [B, T, H, d] -> [B, T, H d]."""

    def __init__(
        self,
        heads: int,
        head_dim: int,
        *,
        eps: float = 1e-5,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads * head_dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(heads * head_dim, device=device, dtype=dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H, d] -> [B, T, H d], in the dtype of the weight."""
        y = F.layer_norm(x.to(self.weight.dtype), x.shape[-1:], eps=self.eps).flatten(-2) * self.weight
        return y if self.bias is None else y + self.bias


class Decay(nn.Module):
    """Mamba's forgetting: a log decay -exp(a) Δ with Δ = softplus(raw + bias), one per head.

    At the start exp(a) is uniform in `rates` and softplus(bias) log-uniform in [0.001, 0.1].
    """

    def __init__(
        self,
        heads: int,
        *,
        rates: tuple[float, float],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rates = rates
        self.log_rate = nn.Parameter(torch.empty(heads, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(heads, device=device, dtype=dtype))
        with torch.no_grad():
            self.log_rate.uniform_(*rates).clamp_(min=1e-4).log_()
            step = self.bias.uniform_(math.log(1e-3), math.log(0.1)).exp_()
            self.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """raw [B, T, H] -> (log decay, Δ), at least float32."""
        kind = self.bias.dtype
        if kind not in (torch.float32, torch.float64):
            kind = torch.float32
        delta = F.softplus(raw.to(kind) + self.bias.to(kind))
        return -self.log_rate.to(kind).exp() * delta, delta


class Blockwise(nn.Module):
    """A linear map of each of `blocks` equal blocks of channels on its own, without bias: [..., C] -> [..., C]."""

    def __init__(
        self,
        width: int,
        blocks: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        size = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size, device=device, dtype=dtype))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (5 * size)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        blocks = x.unflatten(-1, (self.weight.shape[0], -1))
        return torch.einsum("...hj,hij->...hi", blocks, self.weight).flatten(-2)
