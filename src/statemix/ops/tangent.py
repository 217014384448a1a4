"""Forward mode: the tangent of a scan is a scan of the same transitions.

With W = (A, a0) the normalised gates and dW their tangent, the tangent of h_t = A_t h_{t-1} + a0_t v_t is
dh_t = A_t dh_{t-1} + (dA_t h_{t-1} + da0_t v_t + a0_t dv_t): the same transitions, other inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from statemix.ops.lagged import lagged
from statemix.ops.layout import state_dtype
from statemix.ops.normalization import normalize


def pushforward(function: Any, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tangents of a function's outputs, by reverse mode twice: torch refuses forward mode inside a forward-mode
    rule where tensors carry tangents of their own."""
    outputs, pullback = torch.func.vjp(function, *inputs)[:2]
    zeros = tuple(map(torch.zeros_like, outputs))
    return torch.func.vjp(pullback, zeros)[1](tuple(tangents))[0]  # type: ignore[no-any-return]


def tangent_scan(
    recurrence: str, inputs: Sequence[Tensor], states: Tensor, cu_seqlens: Tensor | None,
    tangents: Sequence[Tensor | None], normalization: str,
) -> tuple[str, Tensor, Tensor, Tensor]:  # fmt: skip
    """The scan whose results are the tangents of states and final state: its recurrence (nothing is normalised), gates,
    values and initial state. inputs: gates, values and initial state of the scan that gave `states`; tangents: theirs,
    None being zeros."""
    gates, values, initial = inputs
    pairs = zip(inputs, tangents, strict=True)
    given = [torch.zeros_like(x) if d is None else d for x, d in pairs]
    dtype = state_dtype(values.dtype)
    weights = normalize(gates.to(dtype), normalization)
    (d_weights,) = pushforward(
        lambda g: (normalize(g, normalization),), (gates.to(dtype),), (given[0].to(dtype),)
    )
    seen = _seen(recurrence, states.to(dtype), initial, cu_seqlens)
    transitions, added = _INPUTS[recurrence](weights, d_weights, seen, values.to(dtype), given[1].to(dtype))
    return "hlru" if recurrence == "hlru" else "affine", transitions, added, given[2]


def _seen(recurrence: str, states: Tensor, initial: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """The state before every step: [B, T, N, m], as the transitions meet it."""
    if recurrence == "hlru":
        lags = range(1, initial.shape[-1] + 1)
        return torch.stack([lagged(states, lag, initial, cu_seqlens) for lag in lags], dim=-1)
    before = lagged(states.flatten(2), 1, initial.flatten(1).unsqueeze(-1), cu_seqlens)
    return before.unflatten(2, states.shape[2:])


def _bdlru(w: Tensor, dw: Tensor, seen: Tensor, v: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
    moved = (dw[..., :-1] @ seen.unsqueeze(-1)).squeeze(-1)
    return w[..., :-1], moved + dw[..., -1] * v + w[..., -1] * dv


def _affine(w: Tensor, dw: Tensor, seen: Tensor, v: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
    return w, (dw @ seen.unsqueeze(-1)).squeeze(-1) + dv


def _hlru(w: Tensor, dw: Tensor, seen: Tensor, v: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
    inputs = (dw[..., :-1] * seen).sum(-1) + dw[..., -1] * v + w[..., -1] * dv
    return torch.cat([w[..., :-1], torch.ones_like(w[..., -1:])], dim=-1), inputs


_INPUTS = {"bdlru": _bdlru, "hlru": _hlru, "affine": _affine}
"""Transitions and inputs of the tangent's scan, by recurrence."""
