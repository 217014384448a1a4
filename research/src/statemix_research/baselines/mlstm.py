"""The mLSTM block of xLSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines import chunked
from statemix_research.baselines.base import Baseline, State, split_heads
from statemix_research.baselines.modules import BlockDiagonal, HeadNorm, ShortConvolution

BLOCK = 4
"""Channels that q, k and v are mixed over."""


class MLSTM(Baseline):
    """C_t = σ(f_t) C_{t-1} + exp(i_t) k_t v_tᵀ, n_t likewise with k_t alone, o_t = C_tᵀ q_t / max(|n_tᵀ q_t|, 1).

    The matrix memory stands between an up- and a down-projection. q and k come from a short convolution, v from its
    input, all by block-diagonal projections of 4 channels; an output branch through SiLU.
    x [B, T, dim] -> y [B, T, dim]; state: per head C [d, d], n [d] and m, and the convolution's window, with
    d = expand · dim / heads. Source: arXiv 2405.04517, figure 11 and equations 19-27.

    Args:
        dim: width of input and output.
        heads: number of heads; divides expand · dim.
        expand: the inner width is expand · dim.
        conv_size: steps of the short convolution.
        chunk: steps computed side by side.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        expand: int = 2,
        conv_size: int = 4,
        chunk: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        inner = check_size("dim", dim) * check_size("expand", expand)
        d = split_heads("heads", inner, heads)
        blocks = inner // BLOCK if inner % BLOCK == 0 else inner
        window = (check_size("conv_size", conv_size) - 1, inner)
        super().__init__(dim, {"C": (heads, d, d), "n": (heads, d), "m": (heads,), "window": window})
        self.heads, self.head_dim, self.inner_dim, self.blocks = heads, d, inner, blocks
        self.conv_size, self.chunk = conv_size, check_size("chunk", chunk)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.inputs = nn.Linear(dim, 2 * inner, bias=False, **factory)
        self.convolution = ShortConvolution(inner, conv_size, bias=True, **factory)
        self.q, self.k, self.v = (BlockDiagonal(inner, blocks, **factory) for _ in range(3))
        self.gates = nn.Linear(3 * inner, 2 * heads, **factory)
        self.norm = HeadNorm(heads, d, bias=False, **factory)
        self.skip = nn.Parameter(torch.ones(inner, **factory))
        self.out = nn.Linear(inner, dim, bias=False, **factory)
        self.reset_gates()

    def reset_gates(self) -> None:
        """Initial gates, the same for every input: input biases N(0, 0.1²), forget biases from 3 to 6."""
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias[: self.heads].normal_(std=0.1)
            self.gates.bias[self.heads :] = torch.linspace(3, 6, self.heads)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        inner, side = self.inputs(x).chunk(2, -1)
        smoothed, window = self.convolution(inner, state["window"])
        q, k, v = self.q(smoothed), self.k(smoothed), self.v(inner)
        i, f = self.gates(torch.cat([q, k, v], -1)).chunk(2, -1)
        dtype, memory = state["C"].dtype, (state["C"], state["n"], state["m"])
        q, k, v = (one.unflatten(-1, (self.heads, self.head_dim)).to(dtype) for one in (q, k, v))
        with torch.autocast(x.device.type, enabled=False):
            k, i, f = k * self.head_dim**-0.5, i.to(dtype), f.to(dtype)
            y, (c, n, m) = chunked.mlstm(q=q, k=k, v=v, i=i, f=f, initial_state=memory, chunk=self.chunk)
        y = (self.norm(y) + self.skip * smoothed) * F.silu(side)
        return self.out(y.to(self.dtype)), {"C": c, "n": n, "m": m, "window": window}
