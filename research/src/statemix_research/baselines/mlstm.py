"""The mLSTM block of xLSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Parts, Rival, heads_of
from statemix_research.baselines.chunks import in_chunks
from statemix_research.baselines.loops import least_size
from statemix_research.baselines.parts import Blockwise, HeadNorm, ShortConvolution

State = tuple[Tensor, Tensor, Tensor]

BLOCK = 4
"""Channels that q, k and v are mixed over."""


class MLSTM(Rival):
    """A matrix memory with exponential input gates between an up-projection (by `expand`) and a down-projection.

    Inner width E = expand · dim in `heads`; q, k from a short convolution, v beside it, block-diagonal projections of
    4 channels; an output branch through SiLU. `chunk`: steps computed side by side. State: per head d² + d + 1 numbers
    (d = E / heads), and the convolution's window. Source: arXiv 2405.04517, figure 11 and equations 19-27.
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
        d = heads_of("heads", inner, heads)
        blocks = inner // BLOCK if inner % BLOCK == 0 else inner
        window = (check_size("conv_size", conv_size) - 1, inner)
        super().__init__(dim, {"C": (heads, d, d), "n": (heads, d), "m": (heads,), "window": window})
        self.heads, self.head_dim, self.inner_dim, self.blocks = heads, d, inner, blocks
        self.conv_size, self.chunk = conv_size, check_size("chunk", chunk)
        self.inputs = nn.Linear(dim, 2 * inner, bias=False, device=device, dtype=dtype)
        self.convolution = ShortConvolution(inner, conv_size, bias=True, device=device, dtype=dtype)
        self.q, self.k, self.v = (Blockwise(inner, blocks, device=device, dtype=dtype) for _ in range(3))
        self.gates = nn.Linear(3 * inner, 2 * heads, device=device, dtype=dtype)
        self.norm = HeadNorm(heads, d, bias=False, device=device, dtype=dtype)
        self.skip = nn.Parameter(torch.ones(inner, device=device, dtype=dtype))
        self.out = nn.Linear(inner, dim, bias=False, device=device, dtype=dtype)
        self.reset_gates()

    def reset_gates(self) -> None:
        """Gates as they start, the same for every input: input biases N(0, 0.1²), forget biases from 3 to 6."""
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias[: self.heads].normal_(std=0.1)
            self.gates.bias[self.heads :] = torch.linspace(3, 6, self.heads)

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        inner, side = self.inputs(x).chunk(2, -1)
        seen, window = self.convolution(inner, state["window"])
        q, k, v = self.q(seen), self.k(seen), self.v(inner)
        i, f = self.gates(torch.cat([q, k, v], -1)).chunk(2, -1)
        kind = state["C"].dtype
        q, k, v = (one.unflatten(-1, (self.heads, self.head_dim)).to(kind) for one in (q, k, v))
        memory = (state["C"], state["n"], state["m"])
        with torch.autocast(x.device.type, enabled=False):
            k = k * self.head_dim**-0.5
            y, (c, n, m) = chunked(q, k, v, i.to(kind), f.to(kind), initial_state=memory, chunk=self.chunk)
        y = (self.norm(y) + self.skip * seen) * F.silu(side)
        return self.out(y.to(self.dtype)), {"C": c, "n": n, "m": m, "window": window}


def chunked(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, initial_state: State, chunk: int = 64
) -> tuple[Tensor, State]:
    """`loops.mlstm` with `chunk` steps computed side by side; the same arguments and results."""
    return in_chunks(_one_chunk, (q, k, v, i, f), 5 * [chunk], initial_state)


def _one_chunk(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, state: State
) -> tuple[Tensor, State]:
    """q, k, v [B, H, L, d], i, f [B, H, L] -> ([B, H, L, d], state)."""
    memory, norm, top = state
    kept = F.logsigmoid(f).cumsum(-1)  # log of what is kept from before the chunk to t
    since = (
        kept.unsqueeze(-1) - kept.unsqueeze(-2) + i.unsqueeze(-2)
    )  # [B, H, t, j]: log weight of step j at t
    future = torch.ones(since.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    since = since.masked_fill(future, -torch.inf)
    before = kept + top.unsqueeze(-1)
    tops = torch.maximum(since.amax(-1), before)  # [B, H, L]
    scores = (q @ k.transpose(-1, -2)) * (since - tops.unsqueeze(-1)).exp()
    carried = (before - tops).exp().unsqueeze(-1)
    total = scores.sum(-1, keepdim=True) + carried * (q @ norm.unsqueeze(-1))
    y = (scores @ v + carried * (q @ memory)) / torch.maximum(total.abs(), least_size(tops).unsqueeze(-1))
    last = tops[..., -1]
    added = k * (since[..., -1, :] - last.unsqueeze(-1)).exp().unsqueeze(-1)  # [B, H, L, d]
    left = carried[..., -1, :]
    memory = left.unsqueeze(-1) * memory + added.transpose(-1, -2) @ v
    return y, (memory, left * norm + added.sum(-2), last)
