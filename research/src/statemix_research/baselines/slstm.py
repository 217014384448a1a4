"""The sLSTM block of xLSTM."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines import loops
from statemix_research.baselines.base import Parts, Rival, heads_of
from statemix_research.baselines.parts import Blockwise, HeadNorm, ShortConvolution

GATES = ("z", "i", "f", "o")


class SLSTM(Rival):
    """A scalar memory with exponential input gates and recurrent gates, block-diagonal in `heads`; a loop over time.

    Input and forget gates see a short convolution of x, the others x itself; a norm per head at the end. What follows
    in the paper's block, a gated MLP, is the models' own SwiGLU here. With a `head_dim` of its own the block stands
    between a projection to E = heads · head_dim channels and one back; None: E = dim, as in the paper. State: h, c, n,
    m of E numbers each, and the convolution's window. Source: arXiv 2405.04517, figure 10 and equations 8-18.
    """

    fill: ClassVar[dict[str, float]] = {"m": -1e30}

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
        d = heads_of("heads", dim, heads) if head_dim is None else check_size("head_dim", head_dim)
        inner = check_size("heads", heads) * d
        window = (check_size("conv_size", conv_size) - 1, inner)
        super().__init__(dim, dict.fromkeys("hcnm", (heads, d)) | {"window": window})
        self.heads, self.head_dim, self.inner_dim, self.conv_size = heads, d, inner, conv_size
        self.widened = head_dim is not None
        self.up, self.down = (
            nn.Linear(*shape, bias=False, device=device, dtype=dtype) if self.widened else nn.Identity()
            for shape in ((dim, inner), (inner, dim))
        )
        self.convolution = ShortConvolution(inner, conv_size, bias=True, device=device, dtype=dtype)
        self.inputs = nn.ModuleDict({g: Blockwise(inner, heads, device=device, dtype=dtype) for g in GATES})
        self.recurrent = nn.Parameter(torch.zeros(4, heads, d, d, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(4, heads, d, device=device, dtype=dtype))
        self.norm = HeadNorm(heads, d, bias=False, device=device, dtype=dtype)
        with torch.no_grad():
            self.bias[GATES.index("f")] = torch.linspace(3, 6, d)  # remembers, from about 20 to 400 steps

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        x = self.up(x)
        seen, window = self.convolution(x, state["window"])
        kind = state["c"].dtype
        sources = {"i": seen, "f": seen}
        raw = torch.stack([self.inputs[gate](sources.get(gate, x)) for gate in GATES], 2)  # [B, T, 4, E]
        memory = (state["h"], state["c"], state["n"], state["m"])
        with torch.autocast(x.device.type, enabled=False):
            gates = raw.unflatten(-1, (self.heads, self.head_dim)).to(kind) + self.bias.to(kind)
            y, after = loops.slstm(gates, self.recurrent.to(kind), initial_state=memory)
        return self.down(self.norm(y).to(x.dtype)), dict(zip("hcnm", after, strict=True)) | {"window": window}
