"""Forward mode: the tangent of a scan is a scan of the same transitions.

The tangent of h_t = A_t h_{t-1} + a0_t v_t is dh_t = A_t dh_{t-1} + (dA_t h_{t-1} + da0_t v_t + a0_t dv_t): the same
transitions, and as inputs the tangents of single steps whose states before them are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from statemix.ops import reference
from statemix.ops.lagged import lagged
from statemix.ops.layout import state_dtype
from statemix.ops.normalization import normalize_rows


def pushforward(function: Any, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tangents of a function's outputs, by reverse mode twice: a forward-mode rule may not use forward mode."""
    outputs, pullback = torch.func.vjp(function, *inputs)[:2]
    zeros = tuple(map(torch.zeros_like, outputs))
    return torch.func.vjp(pullback, zeros)[1](tuple(tangents))[0]  # type: ignore[no-any-return]


def tangent_scan(
    recurrence: str, inputs: Sequence[Tensor], states: Tensor, cu_seqlens: Tensor | None,
    tangents: Sequence[Tensor | None], normalization: str,
) -> tuple[str, Tensor, Tensor, Tensor]:  # fmt: skip
    """Recurrence and inputs of the scan, without normalisation, whose results are tangents: those of a scan's outputs
    `states` and final state, from its inputs (gates, values, initial state) and their tangents (None: zeros)."""
    dtype = state_dtype(inputs[1].dtype)
    gates, values = (x.to(dtype) for x in inputs[:2])
    given = [torch.zeros_like(x) if d is None else d for x, d in zip(inputs, tangents, strict=True)]
    before = _before(recurrence, states.to(dtype), inputs[2], cu_seqlens).flatten(0, 1)

    def one_step(gates: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Every step as a sequence of its own, from the state before it."""
        gates, values = (x.flatten(0, 1).unsqueeze(1) for x in (gates, values))
        return reference.scan(recurrence, gates, values, before, None, normalization)[:1]

    (added,) = pushforward(one_step, (gates, values), [d.to(dtype) for d in given[:2]])
    transitions = normalize_rows(gates, normalization)
    if recurrence != "affine":
        transitions = transitions[..., :-1]
    if recurrence == "hlru":
        transitions = torch.cat([transitions, torch.ones_like(transitions[..., :1])], dim=-1)
    kind = "hlru" if recurrence == "hlru" else "affine"
    return kind, transitions, added.reshape(values.shape), given[2]


def _before(recurrence: str, states: Tensor, initial: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """The state before every step: [B, T, N, m]."""
    if recurrence == "hlru":
        lags = range(1, initial.shape[-1] + 1)
        return torch.stack([lagged(states, lag, initial, cu_seqlens) for lag in lags], dim=-1)
    before = lagged(states.flatten(2), 1, initial.flatten(1).unsqueeze(-1), cu_seqlens)
    return before.unflatten(2, states.shape[2:])
