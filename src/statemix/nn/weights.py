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

    Everything is checked before anything is copied. H-LRU has channels and lags for rows and columns, lag 0 newest.

    Args:
        layer: A `BDLRU` or `HLRU`.
        gate_weight: BD-LRU [N·m·(m+1), dim], H-LRU [N·(m+1), dim]; of every row of gates the input gate last. Of a
            layer that is not selective the free gates, [N, m, m+1] or [N, m+1].
        gate_bias: [N·m·(m+1)] or [N·(m+1)]; None if the layer is not selective.
        value_weight: [N·m, dim] or [N, dim].
        output_weight: [dim, N·m]; [dim, N] of an H-LRU that reads out the newest state only. The authors'
            non-selective H-LRU has no output projection: give the identity.

    Raises:
        TypeError: A weight is no tensor.
        ValueError: A weight has another shape, or the bias is missing or superfluous.

    Example:
        >>> layer = BDLRU(4, block_size=2, num_blocks=2)
        >>> load_block_major(
        ...     layer, gate_weight=torch.zeros(12, 4), gate_bias=torch.zeros(12),
        ...     value_weight=torch.eye(4), output_weight=torch.eye(4),
        ... )
        >>> layer(torch.ones(1, 2, 4))[0][0, :, 0].detach()  # softmax of zeros: every gate is 1/3
        tensor([0.3333, 0.5556])

    Source: IgorDn8/mad-lab.
    """
    if layer.selective != (gate_bias is not None):
        came = "None, expected a tensor" if layer.selective else "a tensor, expected None"
        raise ValueError(f"gate_bias: got {came} (the layer is {'' if layer.selective else 'not '}selective)")
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
