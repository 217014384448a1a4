"""Importing weights laid out as in the authors' repository."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from statemix.nn.hlru import HLRU
from statemix.nn.layer import RecurrentLayer
from statemix.nn.projection import memory_major


def load_block_major(
    layer: RecurrentLayer,
    *,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    value_weight: Tensor,
    output_weight: Tensor | None = None,
) -> None:
    """Copy weights in block-major order (block, row, column), as the authors' layers keep them, into a layer.

    BDLRU: gate_weight [N·m·(m+1), dim] and gate_bias [N·m·(m+1)], rows ordered (block, row, column), the last
    column the input gate; value_weight [N·m, dim], rows (block, row); output_weight [dim, N·m], columns
    (block, row). HLRU: gate_weight [N·(m+1), dim] and gate_bias, rows (channel, lag), the last the input gate;
    value_weight [N, dim]; output_weight [dim, N·m], columns (channel, lag), lag 0 newest.
    Non-selective: gate_weight is the free tensor [N, m, m+1] or [N, m+1]; gate_bias is None.
    Everything is checked before anything is copied. Errors: ValueError naming the argument and both shapes.
    """
    blocks, gates, values = layer._blocks, math.prod(layer._gate_shape), math.prod(layer._value_shape)
    taps = layer._taps if isinstance(layer, HLRU) else layer._m
    if layer.selective:
        if gate_bias is None:
            raise ValueError("gate_bias: got None, expected a tensor (the layer is selective)")
        plan = {
            "gate_weight": (layer.gates.weight, gate_weight, (blocks * gates, layer.dim)),
            "gate_bias": (layer.gates.bias, gate_bias, (blocks * gates,)),
        }
    else:
        if gate_bias is not None:
            raise ValueError("gate_bias: got a tensor, expected None (the layer is not selective)")
        plan = {"gate_weight": (layer.free_gates, gate_weight, (blocks, *layer._gate_shape))}
    plan["value_weight"] = (layer.values.weight, value_weight, (blocks * values, layer.dim))
    if output_weight is None:
        raise ValueError("output_weight: got None, expected a tensor [dim, N·m]")
    plan["output_weight"] = (layer.readout_projection.weight, output_weight, (layer.dim, blocks * taps))
    for name, (_, tensor, shape) in plan.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {list(shape)}")
    inner = {"gate_weight": gates, "gate_bias": gates, "value_weight": values}
    with torch.no_grad():
        for name, (parameter, tensor, _) in plan.items():
            if name == "output_weight":
                parameter.copy_(memory_major(tensor.t(), blocks, taps).t())
            elif parameter.dim() > 2:
                parameter.copy_(tensor.movedim(0, -1))
            else:
                parameter.copy_(_in_memory_order(parameter, tensor, blocks, inner[name]))


def _in_memory_order(parameter: Tensor, tensor: Tensor, blocks: int, inner: int) -> Tensor:
    """A row-ordered tensor for a projection; the free gates of HLRU [N, m+1] are only transposed."""
    if parameter.shape[0] != blocks * inner:
        return tensor.movedim(0, -1)
    return memory_major(tensor, blocks, inner)


