"""A projection to gates and values at once, and the scan over them: what a layer in training runs on a GPU.

Both lie side by side in one tensor [B, T, (C + 1) H] (`layout.split_joined`), and so do their gradients, as the
backward kernel leaves them: the gradients of the input and of the weights are one product each, with nothing to add
or to put together. The same kernel sums what the bias receives.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.ops import triton
from statemix.ops.autograd import operator
from statemix.ops.layout import empty_fast, in_fast_format, split_joined
from statemix.ops.scan import carried_state

BACKEND = "triton"
"""Whose kernels write gradients side by side."""

_LIBRARY = torch.library.Library("statemix", "FRAGMENT")
_BACKWARD = (
    "(Tensor joined, Tensor states, Tensor initial_state, Tensor? cu_seqlens, Tensor grad_states, Tensor grad_final,"
    " str normalization) -> (Tensor, Tensor, Tensor)"
)
"""The gradient of gates and values side by side, that of the gates summed over B and T (float32), and that of the
initial state."""


def projected_scan(
    recurrence: str,
    x: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor,
    value_weight: Tensor,
    initial_state: Tensor | None,
    sizes: tuple[int, int],
    *,
    normalization: str,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`bdlru_scan` or `hlru_scan` of gates and values projected from x [B, T, dim], in the dtype of x.

    gate_weight [C H, dim] and gate_bias [C H], rows ordered (column, block[, row]); value_weight [H, dim], rows
    (block[, row]); sizes: N and m, which with `cu_seqlens` tell the shape of the state. Gradients flow to all of them.
    Errors: as the scans. The normalisation and the other arguments are taken as already checked.
    """
    state = carried_state(initial_state, x, *sizes, cu_seqlens)
    weights = (w.to(x.dtype) for w in (gate_weight, gate_bias, value_weight))
    return ProjectedScan.apply(recurrence, x, *weights, state, cu_seqlens, normalization)


def _project(
    x: Tensor, gate_weight: Tensor, gate_bias: Tensor, value_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gates and values side by side, and the weights that lead to them."""
    weight = torch.cat((gate_weight, value_weight))
    return F.linear(x, weight, F.pad(gate_bias, (0, value_weight.shape[0]))), weight


class ProjectedScan(torch.autograd.Function):
    """Gradients to the input, the weights and the initial state, from both outputs."""

    @staticmethod
    def forward(
        ctx: Any, recurrence: str, x: Tensor, gate_weight: Tensor, gate_bias: Tensor, value_weight: Tensor,
        initial_state: Tensor, cu_seqlens: Tensor | None, normalization: str,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """One product, then the scan; the second copy of the weights is kept for the way back."""
        weights = (gate_weight, gate_bias, value_weight)
        joined, weight = _project(x, *weights)
        gates, values = split_joined(joined, initial_state.shape[1 : 2 if recurrence == "hlru" else 3])
        scan = operator(recurrence)
        states, final = scan(gates, values, initial_state, cu_seqlens, normalization, BACKEND)
        ctx.recurrence, ctx.normalization = recurrence, normalization
        ctx.save_for_backward(x, *weights, weight, joined, states, initial_state, cu_seqlens)
        return states, final

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_final: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """Two products behind the gradient of the scan, which is taken another way if it is to have one itself."""
        x, gate_weight, gate_bias, value_weight, weight, joined, *rest = ctx.saved_tensors
        gradient: Any = operator(ctx.recurrence, "_joined_backward")
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            joined, weight = _project(x, gate_weight, gate_bias, value_weight)
            gradient = partial(_differentiable, ctx.recurrence)
        d_joined, d_bias, d_state = gradient(joined, *rest, grad_states, grad_final, ctx.normalization)
        d_joined, d_x, d_gates, d_values = d_joined.flatten(0, 1), None, None, None
        if ctx.needs_input_grad[1]:
            d_x = (d_joined @ weight).view_as(x)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[4]:
            d_weight = d_joined.t() @ x.flatten(0, 1)
            d_gates, d_values = d_weight[: gate_weight.shape[0]], d_weight[gate_weight.shape[0] :]
        return None, d_x, d_gates, d_bias.to(x.dtype), d_values, d_state, None, None


def _differentiable(
    recurrence: str, joined: Tensor, states: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    grad_states: Tensor, grad_final: Tensor, normalization: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As the operator, through the gradient of the scan, which can be differentiated."""
    gates, values = split_joined(joined, states.shape[2:])
    arguments = (gates, values, states, initial_state, cu_seqlens, grad_states, grad_final)
    d_gates, d_values, d_state = operator(recurrence, "_backward")(*arguments, normalization, BACKEND)
    d_gates = d_gates.movedim(-1, 2).flatten(2)
    return torch.cat((d_gates, d_values.flatten(2)), -1), d_gates.sum((0, 1)), d_state


def _backward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    d_joined, d_bias, d_state = triton.backward_joined(recurrence, *arguments)
    return d_joined, d_bias, in_fast_format(d_state, "state")


def _backward_fake(
    joined: Tensor, states: Tensor, initial_state: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    d_joined = torch.empty_like(joined, memory_format=torch.contiguous_format)
    width = joined.shape[-1] - states.shape[2:].numel()
    return d_joined, joined.new_empty(width, dtype=torch.float32), empty_fast(initial_state, "state")


for _recurrence in ("bdlru", "hlru"):
    _name = f"{_recurrence}_scan_joined_backward"
    _LIBRARY.define(_name + _BACKWARD, tags=(torch.Tag.pt2_compliant_tag,))
    for _key in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, partial(_backward, _recurrence), _key)
    torch.library.register_fake(f"statemix::{_name}", _backward_fake, lib=_LIBRARY)
