"""Importing weights laid out as in the authors' repository."""

from __future__ import annotations

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
    layout = layer._gate_layout

    def block_major(rows: Tensor) -> Tensor:
        return rows.unflatten(0, layout).movedim(0, len(layout) - 1)

    readout, values = layer.readout_projection.weight, layer.values.weight
    targets = {  # by name: the tensor, its shape, and a view of the parameter in the same order
        "value_weight": (value_weight, values.shape, values),
        "output_weight": (
            output_weight, readout.shape, readout.unflatten(1, (-1, values.shape[0])).transpose(1, 2),
        ),
    }  # fmt: skip
    if layer.selective:
        gates = layer.gates
        targets["gate_weight"] = (gate_weight, gates.weight.shape, block_major(gates.weight))
        targets["gate_bias"] = (gate_bias, gates.bias.shape, block_major(gates.bias))  # type: ignore[assignment]
    else:
        free = layer.free_gates.movedim(0, -1)
        targets["gate_weight"] = (gate_weight, free.shape, free)
    for name, (tensor, shape, _) in targets.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor {list(shape)}")
        if tensor.shape != shape:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {list(shape)}")
    with torch.no_grad():
        for tensor, _, target in targets.values():
            target.copy_(tensor.reshape(target.shape))
