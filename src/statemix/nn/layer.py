"""What the two layers share: projections, gates that depend on the input or not, state in and out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from statemix.nn.projection import check_input, check_size, split_fast
from statemix.ops import BACKENDS
from statemix.ops.checks import check_normalization


class RecurrentLayer(nn.Module):
    """Base of `BDLRU` and `HLRU`: gates and values from the input, a recurrence, a linear read-out.

    Subclasses give the shape of one block's gates and values (`gate_shape`, `value_shape`), run their scan and
    their read-out. No state is kept on the module between calls.
    """

    def __init__(
        self,
        dim: int,
        *,
        blocks: int,
        m: int,
        gate_shape: tuple[int, ...],
        value_shape: tuple[int, ...],
        readout_width: int,
        normalization: str,
        selective: bool,
        gate_bias: float,
        backend: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_normalization(normalization)
        if backend != "auto" and backend not in BACKENDS:
            known = ", ".join(map(repr, ("auto", *BACKENDS)))
            raise ValueError(f"backend: got {backend!r}, expected one of {known}")
        self.dim, self.normalization, self.selective = dim, normalization, bool(selective)
        self.gate_bias, self.backend = float(gate_bias), backend
        self._blocks, self._m = blocks, m
        self._gate_shape, self._value_shape = gate_shape, value_shape
        kwargs = {"device": device, "dtype": dtype}
        if self.selective:
            self.gates = nn.Linear(dim, math.prod(gate_shape) * blocks, bias=True, **kwargs)  # type: ignore[arg-type]
        else:
            self.free_gates = nn.Parameter(torch.empty(*gate_shape, blocks, **kwargs))  # type: ignore[arg-type]
        self.values = nn.Linear(dim, math.prod(value_shape) * blocks, bias=False, **kwargs)  # type: ignore[arg-type]
        self.readout_projection = nn.Linear(readout_width, dim, bias=False, **kwargs)  # type: ignore[arg-type]
        self.reset_gates()

    def reset_gates(self) -> None:
        """Set the gates as they start: free gates uniform in [0, 1); the projection's bias 0, and `gate_bias`
        at every input gate (the last of a row). A model that re-initialises its weights calls this afterwards."""
        with torch.no_grad():
            if self.selective:
                self.gates.bias.zero_()
                self.gates.bias.unflatten(0, (*self._gate_shape, self._blocks))[..., -1, :] = self.gate_bias
            else:
                self.free_gates.uniform_(0.0, 1.0)

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros [S, N, m] for S = batch_size sequences, float32 (float64 in a float64 layer), on the layer's
        device."""
        check_size("batch_size", batch_size, 0)
        weight = self.values.weight
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return torch.zeros(batch_size, self._blocks, self._m, dtype=dtype, device=weight.device)

    def raw_gates(self, x: Tensor) -> Tensor:
        """The gates before normalisation, N innermost in memory: [..., N, *gate_shape] for x [..., dim]."""
        if self.selective:
            return split_fast(self.gates(x), *self._gate_shape)
        free = self.free_gates.movedim(-1, 0)  # [N, *gate_shape]
        return free.expand(*x.shape[:-1], *free.shape)

    def raw_values(self, x: Tensor) -> Tensor:
        """The values: [..., N, *value_shape] for x [..., dim]."""
        return split_fast(self.values(x), *self._value_shape)

    def _gates_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates, values = self.raw_gates(x), self.raw_values(x)
        return gates.to(values.dtype), values

    def _check_forward(self, x: Tensor) -> None:
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self.values.weight.dtype)

    def _check_step(self, x: Tensor) -> None:
        check_input("x", x, ("B", self.dim), "[B, dim]", self.values.weight.dtype)
