"""RWKV-7's time mixing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Parts, Rival, heads_of
from statemix_research.baselines.operations import check_backend, operate
from statemix_research.baselines.parts import HeadNorm

STRONGEST_DECAY = math.exp(-0.5)
"""The state keeps at least exp(-0.61) of itself, so that the kernels stay exact."""

SHIFTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
"""What the token is mixed for, and how fast the share of the one before falls over the channels at the start."""


class LowRank(nn.Module):
    """x -> up(activation(down(x))) without bias, through `rank` numbers."""

    def __init__(
        self,
        dim: int,
        rank: int,
        activation: nn.Module,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank, bias=False, device=device, dtype=dtype)
        self.activation = activation
        self.up = nn.Linear(rank, dim, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return self.up(self.activation(self.down(x)))


class RWKV7(Rival):
    """S_t = diag(w) S_{t-1} - (a κ) (κᵀ S_{t-1}) + k vᵀ: a decay w and an in-context rate a per channel, |κ| = 1.

    Width `dim` in heads of `head_dim`. As in the first layer of its model: no value residual. State: dim · head_dim and
    the token before. `rank`: of the decay's and the rate's low-rank maps, twice that for the gate; default: 2.5 √dim,
    rounded to a multiple of 32. backend: see `statemix_research.baselines.operations.operate`. Source: arXiv 2503.14456.
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
        heads = heads_of("head_dim", dim, head_dim)
        default = max(32, round(2.5 * math.sqrt(dim) / 32) * 32)
        rank = default if rank is None else check_size("rank", rank)
        super().__init__(dim, {"S": (heads, head_dim, head_dim), "before": (dim,)})
        self.heads, self.head_dim, self.rank, self.backend = heads, head_dim, rank, check_backend(backend)
        place = torch.linspace(0, 1, dim, device=device, dtype=dtype)
        shares = torch.stack([1 - place**power for power in SHIFTS.values()])
        self.shares = nn.Parameter(shares)  # [6, dim]
        self.decay_start = nn.Parameter(6 * place - 5.5)
        self.rate_start = nn.Parameter(torch.full_like(place, -0.19))
        self.key_removed = nn.Parameter(0.76 - 0.1 * place)
        self.key_kept = nn.Parameter(torch.full_like(place, 1.02))
        self.bonus = nn.Parameter(torch.full_like(place, -0.04).unflatten(0, (heads, head_dim)))
        kwargs: dict[str, torch.device | str | torch.dtype | None] = {"device": device, "dtype": dtype}
        self.r, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False, **kwargs) for _ in range(4))  # type: ignore[arg-type]
        self.decay = LowRank(dim, rank, nn.Tanh(), device=device, dtype=dtype)
        self.rate = LowRank(dim, rank, nn.Identity(), device=device, dtype=dtype)
        self.gate = LowRank(dim, 2 * rank, nn.Sigmoid(), device=device, dtype=dtype)
        self.norm = HeadNorm(heads, head_dim, eps=head_dim * 1e-5, device=device, dtype=dtype)

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        before = torch.cat([state["before"].to(x.dtype).unsqueeze(1), x[:, :-1]], 1)
        mixed = {
            name: x + (before - x) * share.to(x.dtype)
            for name, share in zip(SHIFTS, self.shares, strict=True)
        }
        r, k, v = self.r(mixed["r"]), self.k(mixed["k"]), self.v(mixed["v"])
        w = -STRONGEST_DECAY * torch.sigmoid(self.decay_start + self.decay(mixed["w"]))
        rate = torch.sigmoid(self.rate_start + self.rate(mixed["a"]))
        removed = F.normalize(self._heads(k * self.key_removed), dim=-1)
        k = k * (1 + (rate - 1) * self.key_kept)
        r, w, k, v, rate = map(self._heads, (r, w, k, v, rate))
        tensors = {"r": r, "w": w, "k": k, "v": v, "a": -removed, "b": removed * rate}
        y, after = operate("rwkv7", self.backend, state["S"], tensors)
        bonus = (r * k * self.bonus).sum(-1, keepdim=True) * v  # [B, T, H, V]
        y = (self.norm(y) + bonus.flatten(-2)) * self.gate(mixed["g"])
        return self.out(y.to(self.dtype)), {"S": after, "before": x[:, -1]}

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim))
