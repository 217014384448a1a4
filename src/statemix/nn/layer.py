"""What the two layers share: projections, gates that depend on the input or not, state in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.plain import input_dtype, is_hooked, placement
from statemix.nn.projection import check_input, check_size, computed_in, joins, project, turn
from statemix.nn.reset import GateReset
from statemix.ops.checks import check_normalization, check_state
from statemix.ops.layout import in_fast_format, state_dtype
from statemix.ops.projected import projected_scan
from statemix.ops.registration import check_backend, choose_backend, step


class RecurrentLayer(nn.Module):
    """Base of `BDLRU` and `HLRU`: gates and values from the input, a recurrence, a linear read-out.

    Subclasses give the shape of one block's gates and values (`gate_shape`, `value_shape`), their scan and their
    read-out. Parameters are ordered as is fast on a GPU (see `projection`): gates (column, block[, row]),
    values (block[, row]). No state is kept on the module between calls.
    """

    scan: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    """The operation of `statemix.ops` that the layer runs."""

    recurrence: ClassVar[str]
    """Its name among the operators."""

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
        transition_bias: float,
        backend: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_normalization(normalization)
        self.dim, self.normalization, self.selective = dim, normalization, bool(selective)
        self.gate_bias, self.transition_bias = float(gate_bias), float(transition_bias)
        self.backend = check_backend(backend)
        self._blocks, self._m = blocks, m
        self._kept_gates = (gate_shape[-1], blocks, *gate_shape[:-1])
        self._kept_values = (blocks, *value_shape)
        kwargs = {"device": device, "dtype": dtype}
        if self.selective:
            self.gates = nn.Linear(dim, math.prod(self._kept_gates), bias=True, **kwargs)  # type: ignore[arg-type]
        else:
            self.free_gates = nn.Parameter(torch.empty(*self._kept_gates, **kwargs))  # type: ignore[arg-type]
        self.values = nn.Linear(dim, math.prod(self._kept_values), bias=False, **kwargs)  # type: ignore[arg-type]
        self.readout_projection = nn.Linear(readout_width, dim, bias=False, **kwargs)  # type: ignore[arg-type]
        if self.selective:
            reset = GateReset(self.gates, self._kept_gates[0], self.transition_bias, self.gate_bias)
            self.gates.reset_parameters = reset  # type: ignore[method-assign, assignment]
        self.reset_gates()

    def reset_parameters(self) -> None:
        """Draw and fill every parameter anew, as the constructor does: after `to_empty`, say. Sharded ones as well.

        With one seed it gives the same numbers as the constructor. A walk that calls `reset_parameters` of every
        module, in whatever order, gives what the constructor gives, too.
        """
        for module in self.modules():
            if module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self.reset_gates()

    def reset_gates(self) -> None:
        """Set the gates as they start: free gates uniform in [0, 1); the projection's bias `gate_bias` at every input
        gate (the last of a row), `transition_bias` at the others. A model that re-initialises its weights calls this
        afterwards."""
        if not self.selective:
            with torch.no_grad():
                self.free_gates.uniform_(0.0, 1.0)
        elif isinstance(reset := self.gates.__dict__.get("reset_parameters"), GateReset):
            reset.fill()

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros [S, N, m] for S = batch_size sequences, float32 (float64 in a float64 layer), on the layer's
        device."""
        size = check_size("batch_size", batch_size, 0)
        device, dtype = placement(self)
        return torch.zeros(size, self._blocks, self._m, dtype=state_dtype(dtype), device=device)

    def raw_gates(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The gates before normalisation: [..., N, *gate_shape] for x [..., dim], in the fast memory format.

        `dtype`: that of free gates, cast before they are expanded; a projection has that of its product.
        """
        if self.selective:
            return project(self.gates, x, self._kept_gates, gates=True)
        free = turn(self.free_gates, self.free_gates.dim()).to(dtype or self.free_gates.dtype)
        free = in_fast_format(free[None, None], "gates")[0, 0]  # [N, *gate_shape]
        return free.expand(*x.shape[:-1], *free.shape)

    def raw_values(self, x: Tensor) -> Tensor:
        """The values: [..., N, *value_shape] for x [..., dim], in the fast memory format."""
        return project(self.values, x, self._kept_values, gates=False)

    def _forward(self, x: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        """States and final state of x [B, T, dim]."""
        self._check_forward(x)
        if self.selective and joins(self.gates, self.values, x, self.backend):
            return self._run_joined(x, state, cu_seqlens)
        return self._run(x, self.raw_values(x), state, cu_seqlens)

    def _run_joined(
        self, x: Tensor, state: Tensor | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `_run`, with one product for gates and values."""
        return projected_scan(
            self.recurrence, x.to(computed_in(x)), self.gates.weight, self.gates.bias, self.values.weight, state,
            (self._blocks, self._m), normalization=self.normalization, cu_seqlens=cu_seqlens,
        )  # fmt: skip

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state [B, N, m] or None (zeros) -> (y [B, dim], new state). Equal to `forward` on
        T = 1; hooks of the layer run as in `forward`."""
        hooked = is_hooked(self)  # then a hook may bring weights in or cast x, and forward checks the dtype
        check_input("x", x, ("B", self.dim), "[B, dim]", None if hooked else self._input_dtype(x))
        if hooked:
            y, state = self(x.unsqueeze(1), state)
            return y[:, 0], state
        return self._step(x, state)

    def _step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`step` of checked x: output and new state."""
        raise NotImplementedError

    def _scan_step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """States [B, N, ...] in the dtype of x, as the read-out takes them, and new state of one token x [B, dim]."""
        values = self.raw_values(x)
        gates = self._gates_like(x, values)
        shape = (x.shape[0], self._blocks, self._m)
        if state is None:
            state = values.new_zeros(shape, dtype=state_dtype(values.dtype))
        check_state("state", state, shape, values)
        chosen = choose_backend(self.backend, values.device, values.dtype)
        return step(self.recurrence, gates, values, state, self.normalization, chosen)

    def _run(
        self, x: Tensor, values: Tensor, state: Tensor | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        gates = self._gates_like(x, values)
        options = {"normalization": self.normalization, "backend": self.backend}
        return self.scan(gates, values, state, cu_seqlens=cu_seqlens, **options)

    def _gates_like(self, x: Tensor, values: Tensor) -> Tensor:
        """The gates in the dtype of the values: a module in a projection's place may compute in another."""
        gates = self.raw_gates(x, values.dtype)
        return gates if gates.dtype == values.dtype else gates.to(values.dtype)

    def _check_forward(self, x: Tensor) -> None:
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self._input_dtype(x))

    def _input_dtype(self, x: Tensor) -> torch.dtype | None:
        return input_dtype(self.values, x) if isinstance(x, Tensor) else None
