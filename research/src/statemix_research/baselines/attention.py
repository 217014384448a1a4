"""Softmax attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_input, check_size, placement, state_dtype
from statemix_research.baselines.base import Baseline, check_choice, check_state, split_heads


def rotary(x: Tensor, start: int) -> Tensor:
    """Rotate pairs of channels by angles that grow with the position, from `start`: [B, H, T, d] -> the same.

    Source: arXiv 2104.09864.
    """
    half, dtype = x.shape[-1] // 2, state_dtype(x.dtype)
    speeds = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    angles = torch.arange(start, start + x.shape[2], device=x.device, dtype=dtype).unsqueeze(-1) * speeds
    a, b = x.to(dtype).chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


POSITIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"rotary": rotary, "none": lambda x, start: x}
"""How queries and keys depend on their position."""


class Attention(Baseline):
    """y_t = W Σ_{s ≤ t} softmax_s(q_t k_sᵀ / √d) v_s per head: causal, by torch's scaled_dot_product_attention.

    x [B, T, dim] -> y [B, T, dim]; state [B, P, 2, E]: the keys and values of all P tokens before, so it grows;
    packed sequences (cu_seqlens), which have no common P, are refused. Parameters: 4 dim · E. Source: arXiv 1706.03762.

    Args:
        dim: width of input and output.
        heads: number of heads.
        head_dim: d, channels of a head; default dim / heads. E = heads · d.
        position: of queries and keys, "rotary" or "none".
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
        super().__init__(check_size("dim", dim), {})
        d = split_heads("heads", dim, heads) if head_dim is None else check_size("head_dim", head_dim)
        if check_choice("position", position, POSITIONS) == "rotary" and d % 2:
            raise ValueError(
                f"head_dim: got {d}, expected an even number for rotary positions (dim / heads if not given)"
            )
        self.heads, self.head_dim, self.position = check_size("heads", heads), d, position
        self.inner_dim = heads * d
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.inputs = nn.Linear(dim, 3 * self.inner_dim, bias=False, **factory)
        self.out = nn.Linear(self.inner_dim, dim, bias=False, **factory)

    def initial_state(self, batch_size: int) -> Tensor:
        """No keys and values yet: [B, 0, 2, E], float32 (float64 in a float64 layer)."""
        device, dtype = placement(self)
        batch_size = check_size("batch_size", batch_size, 0)
        return torch.zeros(batch_size, 0, 2, self.inner_dim, dtype=state_dtype(dtype), device=device)

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [B, P, 2, E] or None -> (y [B, T, dim], state [B, P + T, 2, E]).

        Raises ValueError or TypeError naming the argument; always for cu_seqlens.
        """
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self.dtype)
        if cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens: got packed sequences, expected None (one length for the whole batch)"
            )
        if state is None:
            state = self.initial_state(x.shape[0]).to(x.device)
        check_state(state, (x.shape[0], "P", 2, self.inner_dim), "[B, P, 2, heads * head_dim]", x)
        if x.shape[1] == 0:
            return x.clone(), state.clone()
        q, k, v = self.inputs(x).chunk(3, -1)
        rotate, before = POSITIONS[self.position], state.shape[1]
        q, k = rotate(self._split(q), before), rotate(self._split(k), before)
        new = torch.stack([k.transpose(1, 2).flatten(-2), v], 2)  # [B, T, 2, E]
        state = torch.cat([state, new.to(state.dtype)], 1)
        keys, values = (self._split(one.to(v.dtype)) for one in state.unbind(2))
        return self.out(attend(q, keys, values).transpose(1, 2).flatten(-2)), state

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, H, T, d]."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries are the last T of P + T positions: q [B, H, T, d], k, v [B, H, P + T, d] -> [B, H, T, d]."""
    steps, all_steps = q.shape[2], k.shape[2]
    if steps == all_steps:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    visible = torch.ones(steps, all_steps, dtype=torch.bool, device=q.device).tril(all_steps - steps)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
