"""The recurrence of PD-SSM, whose matrices copy, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from statemix_research.automata.pdssm import loops


def copy_rows(
    weights: Tensor,
    dictionary: Tensor,
    factors: Tensor,
    inputs: Tensor,
    start: Tensor,
    tokens: Tensor | None = None,
) -> Tensor:
    """States [B, T, N, 2] of h_t[n] = d_t[n] h_{t-1}[c_t[n]] + b_t[n]; complex numbers are pairs, real part first.

    c_t[n] is the column of the largest entry in row n of Σ_k w_k M_k. Gradients pass to the mixture as through a
    softmax of its rows in place of the one-hot ones.

    weights: w [B, T, K]. dictionary: M [K, N, N]. factors: d, inputs: b, [B, T, N, 2]. start: h_0 [B, N, 2].
    tokens: int64 [B, T], if weights [V, K] are those of all tokens.
    """
    return _CopyRows.apply(weights, dictionary, factors, inputs, start, tokens)  # type: ignore[no-any-return,no-untyped-call]


def _passes(x: Tensor) -> Any:
    """The module whose passes take x [.., N, 2]: `kernels` on a GPU for float32 and N = 16, 32, …, else `loops`."""
    n = x.shape[-2]
    if not x.is_cuda or x.dtype != torch.float32 or n < 16 or n & (n - 1):
        return loops
    from statemix_research.automata.pdssm import kernels  # Triton is not everywhere

    return kernels


class _CopyRows(torch.autograd.Function):
    """`copy_rows`. No matrix of a step is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        dictionary: Tensor,
        factors: Tensor,
        inputs: Tensor,
        start: Tensor,
        tokens: Any,
    ) -> Tensor:
        passes = _passes(start)
        columns = passes.choose(weights.contiguous(), dictionary)
        columns = columns if tokens is None else columns[tokens]
        states: Tensor = passes.run(columns, factors.contiguous(), inputs.contiguous(), start)
        ctx.save_for_backward(weights, dictionary, factors, start, tokens, columns, states)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weights, dictionary, factors, start, tokens, columns, states = ctx.saved_tensors
        passes = _passes(start)
        before = torch.cat([start.unsqueeze(1), states[:, :-1]], 1)
        total, back, d_factors, d_start = passes.run_back(
            columns, factors.contiguous(), before, grad.contiguous()
        )
        if tokens is None:
            to_both = passes.choose_back(weights.contiguous(), dictionary, back, before)
        else:
            to_both = loops.through(
                weights, dictionary, passes.outer_by_token(tokens, len(weights), back, before)
            )
        return *to_both, d_factors, total, d_start, None
