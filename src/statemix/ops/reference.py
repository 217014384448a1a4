"""The definition of the three recurrences: plain loops over time, any float dtype, differentiable by autograd.

Every other backend is tested against this file. Arguments are taken as already checked (see `checks.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.ops._torch_compat import with_autograd
from statemix.ops.checks import check_bounds
from statemix.ops.layout import state_dtype
from statemix.ops.normalization import bounded_gradient, normalize_rows


def _affine_loop(transitions: Tensor, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = A_t h_{t-1} + b_t over [B, T, N, m, m] and [B, T, N, m]."""
    states = []
    for t in range(inputs.shape[1]):
        state = (transitions[:, t] @ state.unsqueeze(-1)).squeeze(-1) + inputs[:, t]  # [B, N, m]
        states.append(state)
    return (torch.stack(states, dim=1) if states else torch.zeros_like(inputs)), state


def _bdlru_loop(gates: Tensor, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = A_t h_{t-1} + a0_t * v_t with normalised gates [B, T, N, m, m+1] = (A_t, a0_t)."""
    return _affine_loop(gates[..., :-1], gates[..., -1] * values, state)


def _hlru_loop(gates: Tensor, values: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = sum_i a_i h_{t-i} + a0 v_t with normalised gates [B, T, N, m+1]; window [B, N, m], newest first."""
    states = []
    for t in range(values.shape[1]):
        state = (gates[:, t, :, :-1] * window).sum(-1) + gates[:, t, :, -1] * values[:, t]  # [B, N]
        window = torch.cat([state.unsqueeze(-1), window[..., :-1]], dim=-1)  # [B, N, m]
        states.append(state)
    return (torch.stack(states, dim=1) if states else torch.zeros_like(values)), window


_LOOPS = {"bdlru": _bdlru_loop, "hlru": _hlru_loop, "affine": _affine_loop}


def scan(
    recurrence: str, gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None = None,
    normalization: str = "softmax",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run one recurrence ("bdlru", "hlru", "affine") as a loop. Shapes as in `statemix.ops.bdlru_scan`.

    Returns (states in the dtype of `values`, final state in float32, or float64 for float64 inputs).
    Source: arXiv 2602.12021, the definitions of BD-LRU and H-LRU.
    """
    dtype = state_dtype(values.dtype)
    loop, state = _LOOPS[recurrence], initial_state.to(dtype)
    gates, inputs = normalize_rows(gates.to(dtype), normalization), values.to(dtype)
    if cu_seqlens is None:
        states, final_state = loop(gates, inputs, state)
        return states.to(values.dtype), final_state
    bounds = cu_seqlens.tolist()
    check_bounds(bounds, values.shape[1])
    parts = [
        loop(gates[:, start:end], inputs[:, start:end], state[s : s + 1])
        for s, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    ]
    if not parts:
        return torch.zeros_like(values), state
    states = torch.cat([part for part, _ in parts], dim=1)
    return states.to(values.dtype), torch.cat([final for _, final in parts])


def unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run on a device: it runs on all."""
    return None


def forward(
    recurrence: str, gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    normalization: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loop as a backend's forward pass: no graph is recorded."""
    with torch.no_grad():
        states, final = scan(recurrence, gates, values, initial_state, cu_seqlens, normalization)
    return states, final.clone() if final is initial_state else final  # an operator never returns its input


def backward(
    recurrence: str, gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    grad_states: Tensor, grad_final: Tensor, normalization: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The loop as a backend's backward pass: runs it again under autograd."""
    with with_autograd(), torch.enable_grad():
        inputs = gates, values, initial_state = (
            gates.detach().requires_grad_(), values.detach().requires_grad_(), initial_state.detach().requires_grad_()
        )  # fmt: skip
        outputs = scan(recurrence, gates, values, initial_state, cu_seqlens, normalization)
        pairs = zip(outputs, (grad_states, grad_final), strict=True)
        given = [(out, grad) for out, grad in pairs if out.requires_grad]
        if not given:
            return torch.zeros_like(gates), torch.zeros_like(values), torch.zeros_like(initial_state)
        outs, grad_outs = zip(*given, strict=True)
        d_gates, d_values, d_initial = torch.autograd.grad(
            outs, inputs, grad_outs, allow_unused=True, materialize_grads=True
        )
    d_gates = bounded_gradient(d_gates, gates, normalization)
    return d_gates, d_values, d_initial.clone() if d_initial is grad_final else d_initial
