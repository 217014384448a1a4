"""Importing weights laid out as in the authors' repository."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer


def load_block_major(
    layer: RecurrentLayer,
    *,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    value_weight: Tensor,
    output_weight: Tensor,
) -> None:
    """Copy weights in block-major order (block, row, column), as the authors' layers keep them, into a layer.

    BDLRU: gate_weight [N·m·(m+1), dim] and gate_bias [N·m·(m+1)], rows ordered (block, row, column), the last
    column the input gate; value_weight [N·m, dim], rows (block, row); output_weight [dim, N·m], columns
    (block, row). HLRU: gate_weight [N·(m+1), dim] and gate_bias, rows (channel, lag), the last the input gate;
    value_weight [N, dim]; output_weight [dim, N·m], columns (channel, lag), lag 0 newest ([dim, N] when the layer
    reads out the newest state only).
    Non-selective: gate_weight is the free tensor [N, m, m+1] or [N, m+1]; gate_bias is None. The authors'
    non-selective HLRU has no output projection: give the identity.
    Everything is checked before anything is copied. Errors: TypeError or ValueError naming the argument.
    Source: IgorDn8/mad-lab.
    """
    if layer.selective != (gate_bias is not None):
        came = "None, expected a tensor (the layer is selective)"
        if not layer.selective:
            came = "a tensor, expected None (the layer is not selective)"
        raise ValueError(f"gate_bias: got {came}")
    columns, *rows = layer._gate_layout
    gates, values, dim = math.prod(layer._gate_layout), math.prod(layer._value_layout), layer.dim
    readout = layer.readout_projection.weight
    taps = readout.shape[1] // values

    def last_first(size: int) -> Callable[[Tensor], Tensor]:
        """Reorders rows from (..., last) to (last, ...), `size` of them along last."""
        return lambda rows: rows.unflatten(0, (-1, size)).transpose(0, 1).flatten(0, 1)

    plan: dict[str, tuple[Tensor, Tensor, tuple[int, ...], Callable[[Tensor], Tensor]]] = {
        "value_weight": (value_weight, layer.values.weight, (values, dim), lambda w: w),
        "output_weight": (
            output_weight,
            readout,
            (dim, values * taps),
            lambda w: last_first(taps)(w.t()).t(),
        ),
    }
    if layer.selective:
        assert gate_bias is not None
        plan["gate_weight"] = (gate_weight, layer.gates.weight, (gates, dim), last_first(columns))
        plan["gate_bias"] = (gate_bias, layer.gates.bias, (gates,), last_first(columns))
    else:
        plan["gate_weight"] = (gate_weight, layer.free_gates, (*rows, columns), lambda g: g.movedim(-1, 0))
    for name, (tensor, _, shape, _) in plan.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor {list(shape)}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {list(shape)}")
    with torch.no_grad():
        for tensor, parameter, _, reorder in plan.values():
            parameter.copy_(reorder(tensor))
