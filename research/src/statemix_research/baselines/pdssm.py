"""PD-SSM: a permutation-like matrix chosen by the input, times a complex diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines import loops
from statemix_research.baselines.base import Parts, Rival


class PDSSM(Rival):
    """h_t = P_t (d_t ⊙ h_{t-1}) + B x_t over N = state_dim complex numbers, y_t = Re(C h_t) + D x_t.

    P_t has one 1 in every column: where a mixture of `dictionary_size` learned N × N matrices, its weights a softmax of
    the input, is largest; gradients pass straight through a softmax over the column. |d_t| is a sigmoid, its phase 2π
    times one, each of a two-layer map of `gate_dim` (default: `dim`). A loop over time with [B, T, N, N] numbers in
    memory while training. `magnitude_bias` is what |d_t|'s logit starts with, our choice. State: 2 N numbers.
    Source: arXiv 2509.22284.
    """

    def __init__(
        self,
        dim: int,
        *,
        state_dim: int = 64,
        dictionary_size: int = 8,
        gate_dim: int | None = None,
        magnitude_bias: float = 3.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        n, size = check_size("state_dim", state_dim), check_size("dictionary_size", dictionary_size)
        width = dim if gate_dim is None else check_size("gate_dim", gate_dim)
        super().__init__(dim, {"h": (n, 2)})
        self.state_dim, self.dictionary_size, self.gate_dim = n, size, width
        self.magnitude_bias = float(magnitude_bias)
        self.choice = nn.Linear(dim, size, device=device, dtype=dtype)
        self.dictionary = nn.Parameter(torch.randn(size, n, n, device=device, dtype=dtype))
        magnitude, phase = (
            nn.Sequential(
                nn.Linear(dim, width, device=device, dtype=dtype),
                nn.GELU(),
                nn.Linear(width, n, device=device, dtype=dtype),
            )
            for _ in range(2)
        )
        self.magnitude, self.phase = magnitude, phase
        self.inputs = nn.Linear(dim, 2 * n, bias=False, device=device, dtype=dtype)
        self.skip = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.out = nn.Linear(2 * n, dim, bias=False, device=device, dtype=dtype)
        self.reset_gates()

    def reset_gates(self) -> None:
        """|d_t| as it starts: near the sigmoid of `magnitude_bias`."""
        last = self.magnitude[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, self.magnitude_bias)

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        kind = state["h"].dtype
        magnitude, phase, inputs = (layer(x).to(kind) for layer in (self.magnitude, self.phase, self.inputs))
        with torch.autocast(x.device.type, enabled=False):
            # not in half precision, which would choose otherwise
            choice = self.choice(x.to(self.choice.weight.dtype)).to(kind)
            states, last = scan(
                choice.softmax(-1), self.dictionary.to(kind), magnitude.sigmoid(), 2 * math.pi * phase.sigmoid(),
                inputs.unflatten(-1, (self.state_dim, 2)), initial_state=state["h"],
            )  # fmt: skip
        y = self.out(states.flatten(-2).to(self.dtype))
        return y + self.skip.to(y.dtype) * x.to(y.dtype), {"h": last}


def scan(
    weights: Tensor,
    dictionary: Tensor,
    magnitude: Tensor,
    phase: Tensor,
    inputs: Tensor,
    *,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor]:
    """`loops.permutation_diagonal` with all transitions made at once: A_t = P_t diag(d_t) acts on real and imaginary
    parts by two products; the same arguments and results."""
    chosen = loops.one_hot_columns(weights, dictionary)  # [B, T, N, N]
    cos, sin = magnitude * phase.cos(), magnitude * phase.sin()
    turns = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [B, T, N, 2, 2]
    state, outputs = initial_state, []
    for transition, turn, b in zip(chosen.unbind(1), turns.unbind(1), inputs.unbind(1), strict=True):
        turned = (turn @ state.unsqueeze(-1)).squeeze(-1)
        state = torch.baddbmm(b, transition, turned)
        outputs.append(state)
    return torch.stack(outputs, 1), state
