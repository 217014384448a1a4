"""RWKV-7's time mixing."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Baseline, State, split_heads
from statemix_research.baselines.kernels import check_backend, run_operation
from statemix_research.baselines.modules import HeadNorm

STRONGEST_DECAY = math.exp(-0.5)
"""A channel keeps at least exp(-0.61) of itself a step, so that the kernels stay exact."""

SHIFTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
"""Use of a mixed token -> how fast the initial share of the previous token falls over the channels."""


def low_rank(dim: int, rank: int, activation: nn.Module, **factory: Any) -> nn.Sequential:
    """x -> up(activation(down(x))) without bias, through `rank` numbers."""
    down, up = (nn.Linear(*shape, bias=False, **factory) for shape in ((dim, rank), (rank, dim)))
    return nn.Sequential(OrderedDict(down=down, activation=activation, up=up))


class RWKV7(Baseline):
    """S_t = diag(w_t) S_{t-1} - (a_t ⊙ κ_t) (κ_tᵀ S_{t-1}) + k_t v_tᵀ, y_t = S_tᵀ r_t, |κ_t| = 1, per head.

    A decay w and an in-context rate a per channel. No value residual, as in the first layer of its model.
    x [B, T, dim] -> y [B, T, dim]; state [B, dim · head_dim + dim]: S and the previous token. Source: arXiv 2503.14456.

    Args:
        dim: width of input and output.
        head_dim: channels of a head; divides `dim`.
        rank: of the low-rank maps of decay and rate, twice that for the gate; default 2.5 √dim, to a multiple of 32.
        backend: see `kernels.run_operation`.
    """

    def __init__(
        self,
        dim: int,
        *,
        head_dim: int = 64,
        rank: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        heads = split_heads("head_dim", dim, head_dim)
        default = max(32, round(2.5 * math.sqrt(dim) / 32) * 32)
        rank = default if rank is None else check_size("rank", rank)
        super().__init__(dim, {"S": (heads, head_dim, head_dim), "before": (dim,)})
        self.heads, self.head_dim, self.rank, self.backend = heads, head_dim, rank, check_backend(backend)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        place = torch.linspace(0, 1, dim, **factory)
        self.shares = nn.Parameter(torch.stack([1 - place**power for power in SHIFTS.values()]))  # [6, dim]
        self.decay_start = nn.Parameter(6 * place - 5.5)
        self.rate_start = nn.Parameter(torch.full_like(place, -0.19))
        self.key_removed = nn.Parameter(0.76 - 0.1 * place)
        self.key_kept = nn.Parameter(torch.full_like(place, 1.02))
        self.bonus = nn.Parameter(torch.full_like(place, -0.04).unflatten(0, (heads, head_dim)))
        self.r, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False, **factory) for _ in range(4))
        self.decay = low_rank(dim, rank, nn.Tanh(), **factory)
        self.rate = low_rank(dim, rank, nn.Identity(), **factory)
        self.gate = low_rank(dim, 2 * rank, nn.Sigmoid(), **factory)
        self.norm = HeadNorm(heads, head_dim, eps=head_dim * 1e-5, **factory)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        before = torch.cat([state["before"].to(x.dtype).unsqueeze(1), x[:, :-1]], 1)
        shares = zip(SHIFTS, self.shares, strict=True)
        mixed = {name: x + (before - x) * share.to(x.dtype) for name, share in shares}
        r, k, v = self.r(mixed["r"]), self.k(mixed["k"]), self.v(mixed["v"])
        w = -STRONGEST_DECAY * torch.sigmoid(self.decay_start + self.decay(mixed["w"]))
        rate = torch.sigmoid(self.rate_start + self.rate(mixed["a"]))
        removed = F.normalize(self._split(k * self.key_removed), dim=-1)
        k = k * (1 + (rate - 1) * self.key_kept)
        r, w, k, v, rate = map(self._split, (r, w, k, v, rate))
        tensors = {"r": r, "w": w, "k": k, "v": v, "a": -removed, "b": removed * rate}
        y, after = run_operation("rwkv7", self.backend, state["S"], tensors)
        bonus = (r * k * self.bonus).sum(-1, keepdim=True) * v  # [B, T, H, V]
        y = (self.norm(y) + bonus.flatten(-2)) * self.gate(mixed["g"])
        return self.out(y.to(self.dtype)), {"S": after, "before": x[:, -1]}

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim))
