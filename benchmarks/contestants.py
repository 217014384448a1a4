"""Who is measured on a scan: the compiled kernels, the defining loop, and torch's generic associative scan.

Each contestant takes raw gates and values, and returns the states; softmax gates, state zero at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

from statemix.ops import bdlru_scan, hlru_scan
from statemix.ops.reference import scan as loop

Scan = Callable[[Tensor, Tensor], Tensor]


class Contestant(NamedTuple):
    """What it is, whether it wants N innermost in memory, and its scan for each recurrence."""

    description: str
    fast_layout: bool
    scans: dict[str, Scan]


def _combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(A, b) after (A', b'): h -> A (A' h + b') + b; A [..., m, m], b [..., m]."""
    (before_a, before_b), (after_a, after_b) = left, right
    return after_a @ before_a, (after_a @ before_b.unsqueeze(-1)).squeeze(-1) + after_b


def _combine_fast(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`_combine` for A [..., m, m, N] and b [..., m, N]: products and sums along N."""
    (before_a, before_b), (after_a, after_b) = left, right
    if before_b.shape[-2] == 1:
        return after_a * before_a, after_a.squeeze(-2) * before_b + after_b
    product = (after_a.unsqueeze(-2) * before_a.unsqueeze(-4)).sum(-3)
    return product, (after_a * before_b.unsqueeze(-3)).sum(-2) + after_b


def associative(transitions: Tensor, inputs: Tensor) -> Tensor:
    """The states of h_t = A_t h_{t-1} + b_t from h = 0, by torch's associative scan over T."""
    pairs = (transitions.contiguous(), inputs.contiguous())
    return associative_scan(_combine, pairs, dim=1, combine_mode="generic")[1]


def _associative_fast(transitions: Tensor, inputs: Tensor) -> Tensor:
    """`_associative` with N innermost in memory."""
    pairs = (transitions.movedim(2, -1).contiguous(), inputs.movedim(2, -1).contiguous())
    return associative_scan(_combine_fast, pairs, dim=1, combine_mode="generic")[1].movedim(-1, 2)


def _bdlru(affine: Scan) -> Scan:
    def run(gates: Tensor, values: Tensor) -> Tensor:
        gates = torch.softmax(gates, dim=-1)  # [B, T, N, m, m+1]
        return affine(gates[..., :-1], gates[..., -1] * values)

    return run


def _hlru(affine: Scan) -> Scan:
    """By companion matrices: the state is the window of the last m."""

    def run(gates: Tensor, values: Tensor) -> Tensor:
        gates = torch.softmax(gates, dim=-1)  # [B, T, N, m+1]
        m = gates.shape[-1] - 1
        shift = torch.eye(m, dtype=gates.dtype, device=gates.device)[:-1].expand(*values.shape, m - 1, m)
        companion = torch.cat([gates[..., :-1].unsqueeze(-2), shift], dim=-2)  # [B, T, N, m, m]
        newest = gates[..., -1] * values
        inputs = torch.cat([newest.unsqueeze(-1), newest.new_zeros(*newest.shape, m - 1)], dim=-1)
        return affine(companion, inputs)[..., 0]

    return run


def _loop(recurrence: str) -> Scan:
    def run(gates: Tensor, values: Tensor) -> Tensor:
        m = gates.shape[-1] - 1
        return loop(recurrence, gates, values, values.new_zeros(values.shape[0], values.shape[2], m))[0]

    return run


CONTESTANTS: dict[str, Contestant] = {
    "statemix": Contestant(
        "compiled CPU kernels, N innermost in memory",
        True,
        {
            "bdlru": lambda gates, values: bdlru_scan(gates, values, backend="cpu")[0],
            "hlru": lambda gates, values: hlru_scan(gates, values, backend="cpu")[0],
        },
    ),
    "associative_scan": Contestant(
        "torch's generic associative scan over (A, b), matrix products, differentiated by autograd",
        False,
        {"bdlru": _bdlru(associative), "hlru": _hlru(associative)},
    ),
    "associative_scan_fast": Contestant(
        "the same with N innermost in memory, products and sums along N",
        True,
        {"bdlru": _bdlru(_associative_fast), "hlru": _hlru(_associative_fast)},
    ),
    "loop": Contestant(
        "the defining loop over time, differentiated by autograd",
        True,
        {"bdlru": _loop("bdlru"), "hlru": _loop("hlru")},
    ),
}
"""Everyone, in the order of the table; ratios are to the first."""
