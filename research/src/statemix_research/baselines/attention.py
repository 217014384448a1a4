"""Softmax attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_input, check_size, check_tensor, placement, state_dtype
from statemix_research.baselines.base import heads_of


def rotary(x: Tensor, start: int) -> Tensor:
    """Rotate pairs of channels by angles that grow with the position, from `start`: [B, H, T, d] -> the same.

    Source: arXiv 2104.09864.
    """
    half = x.shape[-1] // 2
    kind = state_dtype(x.dtype)
    speeds = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=kind) / half)
    angles = torch.arange(start, start + x.shape[2], device=x.device, dtype=kind).unsqueeze(-1) * speeds
    a, b = x.to(kind).chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


POSITIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"rotary": rotary, "none": lambda x, start: x}
"""How queries and keys learn where they are."""


class Attention(nn.Module):
    """Causal softmax attention (torch's scaled_dot_product_attention) with `heads` heads of `head_dim` numbers.

    head_dim: dim / heads if None; E = heads · head_dim. position: a key of `POSITIONS`. State: all keys and values seen
    so far, [B, T, 2, E], so it grows; sequences of different lengths have no common state, hence no cu_seqlens.
    Parameters: 4 dim · E. Source: arXiv 1706.03762.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        position: str = "rotary",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("dim", dim)
        d = heads_of("heads", dim, heads) if head_dim is None else check_size("head_dim", head_dim)
        if position not in POSITIONS:
            raise ValueError(f"position: got {position!r}, expected one of {', '.join(map(repr, POSITIONS))}")
        if position == "rotary" and d % 2:
            raise ValueError(
                f"head_dim: got {d}, expected an even number for rotary positions (dim / heads if not given)"
            )
        self.dim, self.heads, self.head_dim, self.position = dim, heads, d, position
        self.inner_dim = check_size("heads", heads) * d
        self.inputs = nn.Linear(dim, 3 * self.inner_dim, bias=False, device=device, dtype=dtype)
        self.out = nn.Linear(self.inner_dim, dim, bias=False, device=device, dtype=dtype)

    def initial_state(self, batch_size: int) -> Tensor:
        """No keys and values yet: [B, 0, 2, E], float32 (float64 in a float64 layer)."""
        shape = (check_size("batch_size", batch_size, 0), 0, 2, self.inner_dim)
        device, dtype = placement(self)
        return torch.zeros(shape, dtype=state_dtype(dtype), device=device)

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [B, P, 2, E] or None -> (y [B, T, dim], state [B, P + T, 2, E]).

        Errors: ValueError or TypeError naming the argument; cu_seqlens is always one.
        """
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", placement(self)[1])
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens: got packed sequences, attention carries one length for the whole batch"
            )
        if state is None:
            state = self.initial_state(x.shape[0]).to(x.device)
        check_tensor("state", state, (x.shape[0], "P", 2, self.inner_dim), "[B, P, 2, heads * head_dim]")
        if x.shape[1] == 0:
            return x.clone(), state.clone()
        q, k, v = self.inputs(x).chunk(3, -1)
        seen = state.shape[1]
        rotate = POSITIONS[self.position]
        q, k = rotate(self._heads(q), seen), rotate(self._heads(k), seen)
        here = torch.stack([k.transpose(1, 2).flatten(-2), v], 2)  # [B, T, 2, E]
        state = torch.cat([state, here.to(state.dtype)], 1)
        keys, values = (self._heads(one.to(v.dtype)) for one in state.unbind(2))
        return self.out(attend(q, keys, values).transpose(1, 2).flatten(-2)), state

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state [B, P, 2, E] -> (y [B, dim], state [B, P + 1, 2, E])."""
        check_input("x", x, ("B", self.dim), "[B, dim]", placement(self)[1])
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, H, T, d]."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries are the last T of P + T positions: q [B, H, T, d], k, v [B, H, P + T, d] -> [B, H, T, d]."""
    steps, all_steps = q.shape[2], k.shape[2]
    if steps == all_steps:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    seen = torch.ones(steps, all_steps, dtype=torch.bool, device=q.device).tril(all_steps - steps)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
