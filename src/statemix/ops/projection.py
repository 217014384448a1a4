"""A scan over gates and values that are projected from one input: what a layer runs.

The rows of a projection's weight are ordered as is fast on a GPU, gate planes outermost: (column, block[, row]) for
gates, (block[, row]) for values; the output then only needs another view. Where N innermost is fast the rows are
reordered on the way: cheap beside the product, which runs over all steps.

A backend that can fuse gets gates and values side by side from one product, in one tensor [B, T, (C + 1) H]
(`layout.split_gates_values`), and leaves their gradients likewise: the gradients of the input and of the weights are
then one product each, with nothing to add or to put together. The same kernel sums what the bias receives. A number of
blocks that leaves the values unaligned is rounded up: the blocks that are added have weights of zero, stay at zero, and
are cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.ops import dispatch
from statemix.ops._torch_compat import in_forward_mode, in_transform
from statemix.ops.autograd import given_or_zeros, is_direct, operator
from statemix.ops.dispatch import COMPILED, can_fuse, choose_backend
from statemix.ops.layout import n_innermost, split_gates_values
from statemix.ops.normalization import normalization_key
from statemix.ops.scan import bdlru_scan, carried_state, hlru_scan
from statemix.ops.zeros import shared_zeros

SCANS = {"bdlru": bdlru_scan, "hlru": hlru_scan}

Sizes = Sequence[int]
"""N and m."""


class LinearMap(NamedTuple):
    """The weight [rows, dim] and bias [rows] of a linear layer that is to be applied."""

    weight: Tensor
    bias: Tensor | None


Projection = LinearMap | Tensor
"""A linear map of the input, or what already came of it: gates [..., N, *rows, column] or values [..., N, *rows]."""


def weight_layout(recurrence: str, sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the rows of the weights stand for: of gates (column, block[, row]), of values (block[, row])."""
    blocks, m = sizes
    rows = (blocks,) if recurrence == "hlru" else (blocks, m)
    return (m + 1, *rows), rows


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a projection of x comes out in: autocast may narrow it (on devices with kernels)."""
    kind = x.device.type
    narrowed = kind in COMPILED and x.dtype != torch.float64 and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if narrowed else x.dtype


def reorders(x: Tensor) -> bool:
    """Whether weights are reordered for x [B, T, ...]: not for one step, whose product reads them only once itself."""
    return x.dim() > 2 and x.shape[1] > 1 and n_innermost(x.device)


def unfold(out: Tensor, layout: tuple[int, ...], *, gates: bool) -> Tensor:
    """The output [..., rows] of a projection to gates or values, a view: [..., N, *rows, column] or [..., N, *rows]."""
    out = out.view(*out.shape[:-1], *layout)
    return out.movedim(-len(layout), -1) if gates else out


def project(projection: Projection, x: Tensor, layout: tuple[int, ...], *, gates: bool) -> Tensor:
    """Gates or values of x [..., dim], in the fast format where a linear map makes them."""
    if isinstance(projection, Tensor):
        return projection
    if not reorders(x):
        return unfold(F.linear(x, *projection), layout, gates=gates)

    last = len(layout) - 1

    def n_innermost_rows(rows: Tensor) -> Tensor:
        rows = rows.unflatten(0, layout)
        return (rows.movedim(0, last) if gates else rows).movedim(0, last)

    weight = n_innermost_rows(projection.weight)  # [*rows(, column), N, dim]
    bias = None if projection.bias is None else n_innermost_rows(projection.bias).flatten()
    out = F.linear(x, weight.flatten(0, -2), bias)
    return out.unflatten(-1, weight.shape[:-1]).movedim(-1, x.dim() - 1)


def projected_scan(
    recurrence: str, x: Tensor, gates: Projection, values: Projection, initial_state: Tensor | None, sizes: Sizes, *,
    normalization: str, hard: bool, cu_seqlens: Tensor | None, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`bdlru_scan` or `hlru_scan` over gates and values projected from x [B, T, dim]; the normalisation is checked."""
    layouts, key = weight_layout(recurrence, sizes), normalization_key(normalization, hard)
    fused, dtype = fusing_backend(x, gates, values, key, backend), compute_dtype(x)
    extra = None if fused is None else extra_blocks(fused, layouts[1], dtype)
    if extra is not None:
        numbers = (x, *gates, values[0])  # values have no bias
        x, *weights = (one if one.dtype == dtype else one.to(dtype) for one in numbers)
        blocks, m = sizes
        state = carried_state(initial_state, x, blocks, m, cu_seqlens)
        if extra:
            weights, state = add_blocks(weights, layouts, extra), F.pad(state, (0, 0, 0, extra))
        states, final = ProjectedScan.apply(recurrence, x, *weights, state, cu_seqlens, key, fused)
        return (states[:, :, :blocks], final[:, :blocks]) if extra else (states, final)
    values = project(values, x, layouts[1], gates=False)
    gates = project(gates, x, layouts[0], gates=True).to(values.dtype)  # a module may compute in another
    options: dict[str, Any] = {"normalization": normalization, "hard": hard, "cu_seqlens": cu_seqlens}
    return SCANS[recurrence](gates, values, initial_state, **options, backend=backend)


def extra_blocks(backend: str, rows: tuple[int, ...], dtype: torch.dtype) -> int | None:
    """Blocks to add to the `rows` (block[, row]) of values so that the backend can fuse; None if there is no such
    number, or more work is added than is saved."""
    blocks, width = rows[0], math.prod(rows[1:])
    if can_fuse(backend, blocks * width, dtype):
        return 0
    few = range(1, blocks // 8 + 1)
    return next((extra for extra in few if can_fuse(backend, (blocks + extra) * width, dtype)), None)


def add_blocks(
    weights: Sequence[Tensor], layouts: tuple[tuple[int, ...], tuple[int, ...]], extra: int
) -> list[Tensor]:
    """The gates' weight and bias and the values' weight with rows of zeros for more blocks."""
    gates, values = layouts

    def longer(rows: Tensor, layout: tuple[int, ...]) -> Tensor:
        behind = (0, 0) * (len(values) - 1 + rows.dim() - 1)  # what lies within a block
        return F.pad(rows.unflatten(0, layout), (*behind, 0, extra)).flatten(0, len(layout) - 1)

    return [longer(rows, layout) for rows, layout in zip(weights, (gates, gates, values), strict=True)]


def fusing_backend(
    x: Tensor, gates: Projection, values: Projection, normalization: str, backend: str
) -> str | None:
    """The backend that may make gates and values by one product: in training of two linear maps, without tangents."""
    if not torch.is_grad_enabled() or n_innermost(x.device) or x.shape[1] <= 1 or in_forward_mode():
        return None
    if isinstance(gates, Tensor) or isinstance(values, Tensor):
        return None
    if gates.bias is None or values.bias is not None or gates.weight.dtype != values.weight.dtype:
        return None
    dtype = compute_dtype(x)
    chosen = choose_backend(backend, x.device, dtype, normalization)
    return chosen if can_fuse(chosen, 0, dtype) and not in_transform() else None


def _project_fused(
    x: Tensor, gate_weight: Tensor, gate_bias: Tensor, value_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gates and values side by side, and the weights that lead to them."""
    weight, none = torch.cat((gate_weight, value_weight)), (value_weight.shape[0],)
    bias = torch.cat((gate_bias, shared_zeros(gate_bias, none, gate_bias.dtype)))
    return F.linear(x, weight, bias), weight


class ProjectedScan(torch.autograd.Function):
    """Gradients to the input, the weights and the initial state, from both outputs."""

    @staticmethod
    def forward(
        ctx: Any, recurrence: str, x: Tensor, gate_weight: Tensor, gate_bias: Tensor, value_weight: Tensor,
        initial_state: Tensor, cu_seqlens: Tensor | None, normalization: str, backend: str,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """One product, then the scan; the second copy of the weights is saved for the backward pass."""
        weights = (gate_weight, gate_bias, value_weight)
        gates_values, weight = _project_fused(x, *weights)
        _, rows = weight_layout(recurrence, initial_state.shape[1:])
        given = (initial_state, cu_seqlens, normalization, backend)
        if is_direct((gates_values, initial_state, cu_seqlens)):
            states, final = dispatch.fused_forward(recurrence, gates_values, rows, *given)
            ctx.set_materialize_grads(False)
        else:
            gates, values = split_gates_values(gates_values, rows)
            states, final = operator(recurrence)(gates, values, *given)
        ctx.recurrence, ctx.normalization, ctx.backend = recurrence, normalization, backend
        ctx.save_for_backward(x, *weights, weight, gates_values, states, initial_state, cu_seqlens)
        return states, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        """Two products behind the gradient of the scan, which is taken another way if it is to have one itself."""
        x, gate_weight, gate_bias, value_weight, weight, gates_values, *rest = ctx.saved_tensors
        gradient: Any = operator(ctx.recurrence, "_fused_backward")
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gates_values, weight = _project_fused(x, gate_weight, gate_bias, value_weight)
            gradient = partial(_differentiable, ctx.recurrence)
        elif is_direct((gates_values, *grads)):
            gradient = partial(dispatch.fused_backward, ctx.recurrence)
        given = (*rest, *given_or_zeros(grads, tuple(rest[:2])), ctx.normalization, ctx.backend)
        d_both, d_bias, d_state = gradient(gates_values, *given)
        d_both, d_x, d_gates, d_values = d_both.flatten(0, 1), None, None, None
        if ctx.needs_input_grad[1]:
            d_x = torch.mm(d_both, weight).view(x.shape)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[4]:
            d_weight = torch.mm(d_both.t(), x.flatten(0, 1))
            d_gates, d_values = d_weight[: gate_weight.shape[0]], d_weight[gate_weight.shape[0] :]
        return None, d_x, d_gates, d_bias.to(x.dtype), d_values, d_state, None, None, None


def _differentiable(
    recurrence: str, gates_values: Tensor, states: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """As the operator, through the gradient of the scan, which can be differentiated."""
    gates, values = split_gates_values(gates_values, states.shape[2:])
    d_gates, d_values, d_state = operator(recurrence, "_backward")(gates, values, states, *rest)
    d_gates = d_gates.movedim(-1, 2).flatten(2)
    return torch.cat((d_gates, d_values.flatten(2)), -1), d_gates.sum((0, 1)), d_state
