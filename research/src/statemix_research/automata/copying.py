"""The recurrence of hard rows that depend on the token alone: a row copies one state, so that no matrix is read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _CopyScan(torch.autograd.Function):
    """`copy_scan`. A step is a gather of [B, N, m], its way back a sum by column; the gradients of a token's rows are a
    matrix product over all places where it stands."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrices: Tensor, inputs: Tensor, initial: Tensor, tokens: Tensor) -> Tensor:
        columns, weights = _copied(matrices)
        state, states = initial, []
        for token in tokens.unbind(-1):
            state = state.gather(-1, columns[token]) * weights[token] + inputs[token]
            states.append(state)
        return torch.stack(states, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        matrices, _, initial, tokens = inputs
        ctx.save_for_backward(matrices, initial, tokens, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        matrices, initial, tokens, states = ctx.saved_tensors
        columns, weights = _copied(matrices)
        carry, adjoints = torch.zeros_like(initial), list[Tensor]()
        for t in reversed(range(tokens.shape[-1])):
            token, adjoint = tokens[:, t], grad[:, t] + carry
            carry = torch.zeros_like(adjoint).scatter_add(-1, columns[token], adjoint * weights[token])
            adjoints.append(adjoint)
        adjoint = torch.stack(adjoints[::-1], 1).flatten(0, 1)  # [B T, N, m]
        before = torch.cat([initial.unsqueeze(1), states[:, :-1]], 1).flatten(0, 1)
        every_token = torch.arange(len(matrices), device=tokens.device)
        here = (tokens.flatten().unsqueeze(-1) == every_token).to(grad)  # [B T, V]
        mine = torch.einsum("kv,kni->nvik", here, adjoint).flatten(1, 2)  # [N, V m, B T]
        d_matrices = (mine @ before.transpose(0, 1)).unflatten(1, (len(matrices), -1)).transpose(0, 1)
        d_inputs = torch.einsum("kv,kni->vni", here, adjoint)
        return d_matrices, d_inputs, carry, None


def copy_scan(matrices: Tensor, inputs: Tensor, initial: Tensor, tokens: Tensor) -> Tensor:
    """States [B, T, N, m] of h_t = A[x_t] h_{t-1} + b[x_t] for tokens x, int64 [B, T].

    matrices: A [V, N, m, m], whose rows have one entry that is not 0, or none. inputs: b [V, N, m]. initial: [B, N, m].
    Equal to `affine_scan` of the looked-up matrices and inputs, whose matrices alone would be m times the states. The
    gradients are those of all entries, not of the copied ones alone.
    """
    return _CopyScan.apply(matrices, inputs, initial, tokens)  # type: ignore[no-any-return,no-untyped-call]


def _copied(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Of every row the column that it copies, and its weight."""
    columns = matrices.abs().argmax(-1)
    return columns, matrices.gather(-1, columns.unsqueeze(-1)).squeeze(-1)
