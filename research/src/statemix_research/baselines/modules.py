"""Modules that several baselines are built from. `**factory` are torch's `device` and `dtype`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over the last `width` steps, then SiLU.

    Its state is the window of the last width - 1 inputs, [B, width - 1, C].
    """

    def __init__(self, channels: int, width: int, *, bias: bool = False, **factory: Any) -> None:
        super().__init__()
        check_size("conv_size", width)
        self.taps = nn.Conv1d(channels, channels, width, groups=channels, bias=bias, **factory)

    def forward(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, C], window [B, width - 1, C] -> (y [B, T, C], the window after it)."""
        length, bias = x.shape[1], self.taps.bias
        extended = torch.cat([window.to(x.dtype), x], 1)  # [B, width - 1 + T, C]
        weights = self.taps.weight[:, 0].unbind(
            -1
        )  # torch.compile makes one kernel of their sum, not of a Conv1d
        terms = [weight * extended[:, lag : lag + length] for lag, weight in enumerate(weights)]
        y = sum(terms if bias is None else [*terms, bias], start=torch.zeros((), device=x.device))
        return F.silu(y.to(x.dtype)), extended[:, length:]


class GatedNorm(nn.Module):
    """RMS norm over the last dimension; SiLU of the gate multiplies its input or (`gate_last`) its output."""

    def __init__(self, width: int, *, gate_last: bool, **factory: Any) -> None:
        super().__init__()
        self.norm, self.gate_last = nn.RMSNorm(width, eps=1e-5, **factory), gate_last

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """x, gate [..., width] -> [..., width], in the dtype of the weight."""
        x, gate = x.to(self.norm.weight.dtype), F.silu(gate.to(self.norm.weight.dtype))
        return self.norm(x) * gate if self.gate_last else self.norm(x * gate)


class HeadNorm(nn.Module):
    """Layer norm of each head on its own, with a weight and (`bias`) a bias per channel."""

    def __init__(
        self, heads: int, head_dim: int, *, eps: float = 1e-5, bias: bool = True, **factory: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads * head_dim, **factory))
        self.bias = nn.Parameter(torch.zeros(heads * head_dim, **factory)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, H, d] -> [B, T, H d], in the dtype of the weight."""
        y = F.layer_norm(x.to(self.weight.dtype), x.shape[-1:], eps=self.eps).flatten(-2) * self.weight
        return y if self.bias is None else y + self.bias


class Decay(nn.Module):
    """Mamba's forget gate: a log decay -exp(a) Δ with Δ = softplus(raw + bias), one per head.

    Initially exp(a) is uniform in `rates` and softplus(bias) log-uniform in [0.001, 0.1].
    """

    def __init__(self, heads: int, *, rates: tuple[float, float], **factory: Any) -> None:
        super().__init__()
        self.rates = rates
        self.log_rate = nn.Parameter(torch.empty(heads, **factory))
        self.bias = nn.Parameter(torch.empty(heads, **factory))
        with torch.no_grad():
            self.log_rate.uniform_(*rates).clamp_(min=1e-4).log_()
            delta = self.bias.uniform_(math.log(1e-3), math.log(0.1)).exp_()
            self.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # the inverse of softplus

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """raw [B, T, H] -> (log decay, Δ), at least float32."""
        dtype = torch.promote_types(self.bias.dtype, torch.float32)
        delta = F.softplus(raw.to(dtype) + self.bias.to(dtype))
        return -self.log_rate.to(dtype).exp() * delta, delta


class BlockDiagonal(nn.Module):
    """A linear map of each of `blocks` equal blocks of channels on its own, without bias."""

    def __init__(self, width: int, blocks: int, **factory: Any) -> None:
        super().__init__()
        size = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size, **factory))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (5 * size)))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., C]."""
        blocks = x.unflatten(-1, (self.weight.shape[0], -1))
        return torch.einsum("...hj,hij->...hi", blocks, self.weight).flatten(-2)


def rotation(numbers: Tensor) -> Tensor:
    """Complex numbers [..., 2] as matrices [..., 2, 2] that multiply (real, imaginary) by them."""
    real, imaginary = numbers.unbind(-1)
    return torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -2)
