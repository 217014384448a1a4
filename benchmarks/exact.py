"""The scans and their gradients in float64, all steps at once: what long sequences are checked against.

Pairs (A, b) are combined by doubling, log2(T) rounds over the whole sequence, where the defining loop would need T.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statemix.ops import normalize


def _bdlru(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    weights = normalize(gates)  # [B, T, N, m, m+1]
    return weights[..., :-1], weights[..., -1] * values


def _hlru(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Companion matrices: the state is the window of the last m, newest first."""
    weights = normalize(gates)  # [B, T, N, m+1]
    m = weights.shape[-1] - 1
    shift = torch.eye(m, dtype=gates.dtype, device=gates.device)[:-1].expand(*values.shape, m - 1, m)
    companion = torch.cat([weights[..., :-1].unsqueeze(-2), shift], dim=-2)  # [B, T, N, m, m]
    return companion, _newest(weights[..., -1] * values, m)


def _newest(tensor: Tensor, m: int) -> Tensor:
    """[B, T, N] -> [B, T, N, m], the newest place filled and the others zero."""
    return torch.cat([tensor.unsqueeze(-1), tensor.new_zeros(*tensor.shape, m - 1)], dim=-1)


AFFINE: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "bdlru": _bdlru,
    "hlru": _hlru,
    "affine": lambda transitions, inputs: (transitions * 1.0, inputs * 1.0),
}
"""Raw gates and values to A [B, T, N, m, m] and b [B, T, N, m]; softmax."""


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """h_t = A_t h_{t-1} + b_t from zero, along dimension 1."""
    step, length = 1, b.shape[1]
    while step < length:
        b = torch.cat([b[:, :step], _times(a[:, step:], b[:, :-step]) + b[:, step:]], dim=1)
        a = torch.cat([a[:, :step], a[:, step:] @ a[:, :-step]], dim=1)
        step *= 2
    return b


def exact(
    recurrence: str, gates: Tensor, values: Tensor, grad_states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States and the gradients of gates and values, in float64; softmax gates, zero state at the start.

    Shapes as in `statemix.ops.bdlru_scan`; grad_states is shaped like the values.
    """
    gates, values = (x.detach().double().requires_grad_() for x in (gates, values))
    with torch.enable_grad():
        a, b = AFFINE[recurrence](gates, values)
    window = b.dim() > values.dim()  # H-LRU: the state is wider than the values
    grad = grad_states.double()
    with torch.no_grad():
        states = _scan(a, b)
        after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1).transpose(
            -1, -2
        )  # A_{t+1} transposed
        grad = _newest(grad, b.shape[-1]) if window else grad
        adjoint = _scan(after.flip(1), grad.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)  # h_{t-1}
        grad_a = adjoint.unsqueeze(-1) * before.unsqueeze(-2)
    d_gates, d_values = torch.autograd.grad((a, b), (gates, values), (grad_a, adjoint))
    return (states[..., 0] if window else states), d_gates, d_values


def corner(tensor: Tensor) -> Tensor:
    """The first and last sequences, of them the first and last two blocks: [<= 2, T, <= 4, ...]."""
    sequences = sorted({0, tensor.shape[0] - 1})
    blocks = sorted(
        {b % tensor.shape[2] for b in (0, min(1, tensor.shape[2] - 1), -1, -min(2, tensor.shape[2]))}
    )
    return tensor[sequences][:, :, blocks]


def relative_rms(got: Tensor, want: Tensor) -> float:
    """Root-mean-square error relative to the true numbers' own root mean square."""
    return float((got.double() - want).norm() / want.norm())
