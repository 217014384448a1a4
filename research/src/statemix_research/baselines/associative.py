"""torch's generic associative scan over h -> A h + b, as arXiv 2602.12021 has it; derivatives by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def _combine(left: Pair, right: Pair) -> Pair:
    """(A, b) after (A', b'): h -> A (A' h + b') + b; A [..., m, m], b [..., m]."""
    (before_a, before_b), (after_a, after_b) = left, right
    return after_a @ before_a, (after_a @ before_b.unsqueeze(-1)).squeeze(-1) + after_b


def _combine_fast(left: Pair, right: Pair) -> Pair:
    """`_combine` for A [..., m, m, N] and b [..., m, N]: products and sums along N."""
    (before_a, before_b), (after_a, after_b) = left, right
    if before_b.shape[-2] == 1:
        return after_a * before_a, after_a.squeeze(-2) * before_b + after_b
    product = (after_a.unsqueeze(-2) * before_a.unsqueeze(-4)).sum(-3)
    return product, (after_a * before_b.unsqueeze(-3)).sum(-2) + after_b


def associative(transitions: Tensor, inputs: Tensor, *, fast: bool = False) -> Tensor:
    """The states of h_t = A_t h_{t-1} + b_t from h = 0: A [B, T, N, m, m], b [B, T, N, m] -> h [B, T, N, m].

    fast: N is made innermost in memory.
    """
    from torch._higher_order_ops.associative_scan import associative_scan

    pairs, combine = (transitions, inputs), _combine
    if fast:
        pairs, combine = (transitions.movedim(2, -1), inputs.movedim(2, -1)), _combine_fast
    pairs = (pairs[0].contiguous(), pairs[1].contiguous())
    states = associative_scan(combine, pairs, dim=1, combine_mode="generic")[1]
    return states.movedim(-1, 2) if fast else states


def gated(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """BD-LRU by this scan: raw gates [B, T, N, m, m+1], values [B, T, N, m] -> (softmax weights, states)."""
    weights = torch.softmax(gates, dim=-1)
    return weights, associative(weights[..., :-1], weights[..., -1] * values)
