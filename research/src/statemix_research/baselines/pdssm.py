"""PD-SSM: a permutation-like matrix chosen by the input, times a complex diagonal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines import recurrences
from statemix_research.baselines.base import Baseline, State
from statemix_research.baselines.modules import rotation


class PDSSM(Baseline):
    """h_t = P_t (d_t ⊙ h_{t-1}) + B x_t over N complex numbers, y_t = Re(C h_t) + D x_t.

    P_t has one 1 in every column: where a mixture of learned N × N matrices, its weights a softmax of the input, is
    largest; gradients pass straight through a softmax over the column. |d_t| is a sigmoid, its phase 2π times one, each
    of a two-layer map. A loop over time with [B, T, N, N] numbers in memory while training.
    x [B, T, dim] -> y [B, T, dim]; state [B, 2 N]. Source: arXiv 2509.22284.

    Args:
        dim: width of input and output.
        state_dim: N, complex numbers of the state.
        dictionary_size: matrices in the mixture.
        gate_dim: hidden size of the maps to d_t; default `dim`.
        magnitude_bias: initial logit of |d_t|; the paper gives none.
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
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.choice = nn.Linear(dim, size, **factory)
        self.dictionary = nn.Parameter(torch.randn(size, n, n, **factory))
        self.magnitude, self.phase = (
            nn.Sequential(nn.Linear(dim, width, **factory), nn.GELU(), nn.Linear(width, n, **factory))
            for _ in range(2)
        )
        self.inputs = nn.Linear(dim, 2 * n, bias=False, **factory)
        self.skip = nn.Parameter(torch.ones(dim, **factory))
        self.out = nn.Linear(2 * n, dim, bias=False, **factory)
        self.reset_gates()

    def reset_gates(self) -> None:
        """Initial |d_t|: near the sigmoid of `magnitude_bias`."""
        last = self.magnitude[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, self.magnitude_bias)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        dtype = state["h"].dtype
        magnitude, phase, inputs = (layer(x).to(dtype) for layer in (self.magnitude, self.phase, self.inputs))
        with torch.autocast(x.device.type, enabled=False):  # half precision would choose other matrices
            choice = self.choice(x.to(self.choice.weight.dtype)).to(dtype)
            states, last = batched_permutation_diagonal(
                choice.softmax(-1), self.dictionary.to(dtype), magnitude.sigmoid(), 2 * math.pi * phase.sigmoid(),
                inputs.unflatten(-1, (self.state_dim, 2)), initial_state=state["h"],
            )  # fmt: skip
        y = self.out(states.flatten(-2).to(self.dtype))
        return y + self.skip.to(y.dtype) * x.to(y.dtype), {"h": last}


def batched_permutation_diagonal(
    weights: Tensor, dictionary: Tensor, magnitude: Tensor, phase: Tensor, inputs: Tensor, *, initial_state: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`recurrences.permutation_diagonal` with the transitions of all steps made at once; same arguments and results."""
    permutations = recurrences.one_hot_columns(weights, dictionary)  # [B, T, N, N]
    diagonal = torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], -1)
    state, outputs, steps = initial_state, [], (permutations, rotation(diagonal), inputs)
    for permutation, rotate, b in zip(*(x.unbind(1) for x in steps), strict=True):
        state = torch.baddbmm(b, permutation, (rotate @ state.unsqueeze(-1)).squeeze(-1))
        outputs.append(state)
    return torch.stack(outputs, 1), state
