"""The sLSTM block of xLSTM."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines import recurrences
from statemix_research.baselines.base import Baseline, State, split_heads
from statemix_research.baselines.modules import BlockDiagonal, HeadNorm, ShortConvolution

GATES = ("z", "i", "f", "o")


class SLSTM(Baseline):
    """c_t = σ(f) c_{t-1} + exp(i) tanh(z), n_t = σ(f) n_{t-1} + exp(i), h_t = σ(o) c_t / n_t; a loop over time.

    Gates are block-diagonal in x_t and in h_{t-1}, head by head; i and f see a short convolution of x; a norm per
    head at the end. The gated MLP of the paper's block is the models' own SwiGLU.
    x [B, T, dim] -> y [B, T, dim]; state: h, c, n, m [B, E] each and the convolution's window, E = heads · head_dim.
    Source: arXiv 2405.04517, figure 10 and equations 8-18.

    Args:
        dim: width of input and output.
        heads: blocks of the gates.
        head_dim: channels of a head, between projections to E channels and back; None: E = dim without projections,
            as in the paper.
        conv_size: steps of the short convolution.
    """

    start: ClassVar[dict[str, float]] = {"m": -1e30}

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        conv_size: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        d = split_heads("heads", dim, heads) if head_dim is None else check_size("head_dim", head_dim)
        inner = check_size("heads", heads) * d
        window = (check_size("conv_size", conv_size) - 1, inner)
        super().__init__(dim, dict.fromkeys("hcnm", (heads, d)) | {"window": window})
        self.heads, self.head_dim, self.inner_dim, self.conv_size = heads, d, inner, conv_size
        self.widened = head_dim is not None
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.up, self.down = (
            nn.Linear(*shape, bias=False, **factory) if self.widened else nn.Identity()
            for shape in ((dim, inner), (inner, dim))
        )
        self.convolution = ShortConvolution(inner, conv_size, bias=True, **factory)
        self.inputs = nn.ModuleDict({gate: BlockDiagonal(inner, heads, **factory) for gate in GATES})
        self.recurrent = nn.Parameter(torch.zeros(4, heads, d, d, **factory))
        self.bias = nn.Parameter(torch.zeros(4, heads, d, **factory))
        self.norm = HeadNorm(heads, d, bias=False, **factory)
        with torch.no_grad():
            self.bias[GATES.index("f")] = torch.linspace(3, 6, d)  # a memory of about 20 to 400 steps

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        x = self.up(x)
        smoothed, window = self.convolution(x, state["window"])
        sources, dtype = {"i": smoothed, "f": smoothed}, state["c"].dtype
        raw = torch.stack([self.inputs[gate](sources.get(gate, x)) for gate in GATES], 2)  # [B, T, 4, E]
        memory = (state["h"], state["c"], state["n"], state["m"])
        with torch.autocast(x.device.type, enabled=False):
            gates = raw.unflatten(-1, (self.heads, self.head_dim)).to(dtype) + self.bias.to(dtype)
            y, after = recurrences.slstm(gates, self.recurrent.to(dtype), initial_state=memory)
        return self.down(self.norm(y).to(x.dtype)), dict(zip("hcnm", after, strict=True)) | {"window": window}
