"""How the projection to gates starts, where whoever resets a linear layer finds it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn


class GateReset:
    """`reset_parameters` of the linear layer that projects to gates: drawn as any other, then its bias filled.

    It stands on the linear layer itself, whose class stays `nn.Linear`: whoever walks over the modules that hold
    parameters, in whatever order, starts the gates as the constructor does, and whoever replaces linear layers by
    their class finds it. The layer is held weakly, so that it is freed as soon as nobody uses it.
    """

    def __init__(self, linear: nn.Linear, columns: int, transition_bias: float, gate_bias: float) -> None:
        self._linear = weakref.ref(linear)
        self._arguments = (columns, transition_bias, gate_bias)

    def __call__(self) -> None:
        """Draw weight and bias, then `fill`."""
        nn.Linear.reset_parameters(self._layer())
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """The bias: rows ordered (column, ...), the last column being the input gates."""
        columns, transition_bias, gate_bias = self._arguments
        bias = self._layer().bias
        rows = torch.full((columns,), transition_bias, dtype=bias.dtype, device=bias.device)
        rows[-1] = gate_bias
        bias.copy_(_shared_out(rows.repeat_interleave(bias.shape[0] // columns), bias))

    def _layer(self) -> nn.Linear:
        linear = self._linear()
        assert linear is not None
        return linear

    def __reduce__(self) -> tuple[Any, ...]:
        return GateReset, (self._layer(), *self._arguments)


def _shared_out(full: Tensor, like: Tensor) -> Tensor:
    """`full` on the shards of `like`, if it is sharded (a DTensor)."""
    mesh, placements = getattr(like, "device_mesh", None), getattr(like, "placements", None)
    if mesh is None:
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, mesh, placements, src_data_rank=None)
