"""Scans as affine recurrences: in float64, what every measured scan is checked against, and by torch's scan."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

from statemix.ops import normalize

Pair = tuple[Tensor, Tensor]


def as_affine(recurrence: str, gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Raw gates and values as A [B, T, N, m, m] and b [B, T, N, m] of h_t = A_t h_{t-1} + b_t; softmax gates.

    H-LRU becomes companion matrices: its state is the window of the last m, newest first.
    """
    if recurrence == "affine":
        return gates, values
    weights = normalize(gates)  # [..., m+1]
    transitions, inputs = weights[..., :-1], weights[..., -1] * values
    if recurrence == "bdlru":
        return transitions, inputs
    m = transitions.shape[-1]
    shift = torch.eye(m, dtype=gates.dtype, device=gates.device)[:-1].expand(*values.shape, m - 1, m)
    return torch.cat([transitions.unsqueeze(-2), shift], dim=-2), _newest(inputs, m)


def _newest(tensor: Tensor, m: int) -> Tensor:
    """[B, T, N] -> [B, T, N, m], the newest place filled and the others zero."""
    return torch.cat([tensor.unsqueeze(-1), tensor.new_zeros(*tensor.shape, m - 1)], dim=-1)


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """h_t = A_t h_{t-1} + b_t from zero along dimension 1, by doubling: log2(T) rounds over the whole sequence."""
    step = 1
    while step < b.shape[1]:
        carried = (a[:, step:] @ b[:, :-step].unsqueeze(-1)).squeeze(-1)
        b = torch.cat([b[:, :step], carried + b[:, step:]], dim=1)
        a = torch.cat([a[:, :step], a[:, step:] @ a[:, :-step]], dim=1)
        step *= 2
    return b


def shifted(tensor: Tensor, by: int) -> Tensor:
    """The numbers of the step before (by = 1) or after (by = -1), zero where there is none: [B, T, ...] -> the same."""
    zero = torch.zeros_like(tensor[:, :1])
    return torch.cat([zero, tensor[:, :-1]] if by > 0 else [tensor[:, 1:], zero], dim=1)


def float64_scan(
    recurrence: str, gates: Tensor, values: Tensor, grad_states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States and the gradients of gates and values in float64, from a zero state.

    Shapes as in `statemix.ops.bdlru_scan`; grad_states is shaped like the values.
    """
    gates, values = (x.detach().double().requires_grad_() for x in (gates, values))
    with torch.enable_grad():
        a, b = as_affine(recurrence, gates * 1.0, values * 1.0)
    window = b.dim() > values.dim()  # H-LRU: the state is wider than the values
    grad = grad_states.double()
    with torch.no_grad():
        states = _scan(a, b)
        grad = _newest(grad, b.shape[-1]) if window else grad
        after = shifted(a, -1).transpose(-1, -2)
        adjoint = _scan(after.flip(1), grad.flip(1)).flip(1)  # l_t = dh_t + A_{t+1}ᵀ l_{t+1}
        grad_a = adjoint.unsqueeze(-1) * shifted(states, 1).unsqueeze(-2)
    d_gates, d_values = torch.autograd.grad((a, b), (gates, values), (grad_a, adjoint))
    return (states[..., 0] if window else states), d_gates, d_values


def corner(tensor: Tensor) -> Tensor:
    """The first and last sequences, of them the first and last two blocks: [<= 2, T, <= 4, ...]."""
    sequences, blocks = tensor.shape[0], tensor.shape[2]
    kept = sorted({block % blocks for block in (0, min(1, blocks - 1), -1, -min(2, blocks))})
    return tensor[sorted({0, sequences - 1})][:, :, kept]


def relative_rms(got: Tensor, want: Tensor) -> float:
    """Root-mean-square error relative to the true numbers' own root mean square."""
    return float((got.double() - want).norm() / want.norm())


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


def associative(transitions: Tensor, inputs: Tensor) -> Tensor:
    """The states of h_t = A_t h_{t-1} + b_t from h = 0, by torch's associative scan over T."""
    pairs = (transitions.contiguous(), inputs.contiguous())
    return associative_scan(_combine, pairs, dim=1, combine_mode="generic")[1]


def associative_fast(transitions: Tensor, inputs: Tensor) -> Tensor:
    """`associative` with N innermost in memory."""
    pairs = (transitions.movedim(2, -1).contiguous(), inputs.movedim(2, -1).contiguous())
    return associative_scan(_combine_fast, pairs, dim=1, combine_mode="generic")[1].movedim(-1, 2)
