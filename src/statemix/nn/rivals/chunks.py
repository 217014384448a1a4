"""Recurrences with the steps of a chunk computed side by side, in plain torch: on every device, any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64


def simple_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """`loops.simple_gla` with `chunk` steps computed side by side; the same arguments and results.

    Source: arXiv 2405.21060, section 6.
    """
    state, outputs = initial_state, []
    heads_first = (one.transpose(1, 2).split(chunk, 2) for one in (q, k, v, g))
    for pieces in zip(*heads_first, strict=True):
        y, state = _one_chunk(*pieces, state=state)
        outputs.append(y)
    return torch.cat(outputs, 2).transpose(1, 2), state


def _one_chunk(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor) -> tuple[Tensor, Tensor]:
    """q, k [B, H, L, K], v [B, H, L, V], g [B, H, L], state [B, H, K, V] -> ([B, H, L, V], state)."""
    kept = g.cumsum(-1).exp().unsqueeze(-1)  # what is left at t of the state before the chunk
    weights = _sums_since(g).exp().tril()  # [B, H, t, j]: what is left at t of what step j wrote
    scores = (q @ k.transpose(-1, -2)) * weights
    y = scores @ v + kept * (q @ state)
    left = k * weights[..., -1, :].unsqueeze(-1)
    return y, kept[..., -1:, :] * state + left.transpose(-1, -2) @ v


def _sums_since(g: Tensor) -> Tensor:
    """g [..., L] -> [..., t, j]: g_{j+1} + … + g_t, 0 for j >= t.

    Each is added up by itself: a difference of two sums from the start loses what is small behind a large g.
    """
    steps = g.unsqueeze(-1).expand(*g.shape, g.shape[-1])
    return steps.tril(-1).cumsum(-2)
