"""What the two layers share: projections, gates that depend on the input or not, state in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.linear import as_projection, input_dtype
from statemix.nn.mixer import check_cu_seqlens, check_input, check_size, placement, state_dtype
from statemix.nn.reset import GateReset
from statemix.ops._torch_compat import is_hooked
from statemix.ops.dispatch import check_backend
from statemix.ops.layout import in_fast_format
from statemix.ops.normalization import normalization_key, normalize
from statemix.ops.projection import Projection, compute_dtype, project, projected_scan, weight_layout
from statemix.ops.scan import step as scan_step


def check_sizes(dim: int, **sizes: int | None) -> tuple[int, int, int]:
    """dim, m and the number of blocks: by default about dim / m, from 64 on a multiple of 8, which GPUs read fast."""
    (name, size), (blocks_name, blocks) = sizes.items()
    dim, m = check_size("dim", dim), check_size(name, size)  # type: ignore[arg-type]
    unit = 8 if dim >= 64 * m else 1
    default = max(1, round(dim / m / unit)) * unit
    return dim, m, default if blocks is None else check_size(blocks_name, blocks)


class RecurrentLayer(nn.Module):
    """Base of `BDLRU` and `HLRU`: gates and values from the input, a recurrence, a linear read-out.

    Subclasses say which recurrence and how the states are read out. Parameters are ordered as is fast on a GPU (see
    `ops.projection`): gates (column, block[, row]), values (block[, row]). No state is kept on the module between
    calls.
    """

    scan: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    """The operation of `statemix.ops` that the layer runs."""

    recurrence: ClassVar[str]
    """Its name among the operators."""

    shown: ClassVar[tuple[str, ...]]
    """The arguments that a printed layer shows."""

    def __init__(
        self, dim: int, *, blocks: int, m: int, readout_width: int, normalization: str, selective: bool,
        hard: bool, learned_initial_state: bool, gate_bias: float, transition_bias: float, backend: str,
        device: torch.device | str | None, dtype: torch.dtype | None,
    ) -> None:  # fmt: skip
        super().__init__()
        normalization_key(normalization, hard)
        self.dim, self.normalization, self.selective = dim, normalization, bool(selective)
        self.hard, self.learned_initial_state = hard, bool(learned_initial_state)
        self.gate_bias, self.transition_bias = float(gate_bias), float(transition_bias)
        self.backend = check_backend(backend)
        self._sizes = blocks, m
        self._gate_layout, self._value_layout = weight_layout(self.recurrence, self._sizes)
        kwargs = {"device": device, "dtype": dtype}
        if self.selective:
            self.gates = nn.Linear(dim, math.prod(self._gate_layout), bias=True, **kwargs)  # type: ignore[arg-type]
        else:
            self.free_gates = nn.Parameter(torch.empty(*self._gate_layout, **kwargs))  # type: ignore[arg-type]
        self.values = nn.Linear(dim, math.prod(self._value_layout), bias=False, **kwargs)  # type: ignore[arg-type]
        self.readout_projection = nn.Linear(readout_width, dim, bias=False, **kwargs)  # type: ignore[arg-type]
        if self.selective:
            reset = GateReset(self.gates, self._gate_layout[0], self.transition_bias, self.gate_bias)
            self.gates.reset_parameters = reset  # type: ignore[method-assign, assignment]
        learned = self.learned_initial_state
        self.initial = nn.Parameter(torch.empty(blocks, m, **kwargs)) if learned else None  # type: ignore[arg-type]
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
        """Set what is no linear weight as it starts: free gates uniform in [0, 1); the projection's bias `gate_bias` at
        every input gate (the last of a row), `transition_bias` at the others; a learned initial state drawn from
        N(0, 1). A model that re-initialises its weights calls this afterwards."""
        if self.initial is not None:
            nn.init.normal_(self.initial)
        if not self.selective:
            nn.init.uniform_(self.free_gates, 0.0, 1.0)
        elif isinstance(reset := self.gates.__dict__.get("reset_parameters"), GateReset):
            reset.fill()

    def initial_state(self, batch_size: int) -> Tensor:
        """The state [S, N, m] before the first step of S = batch_size sequences, float32 (float64 in a float64 layer),
        on the layer's device: zeros, or a copy of `initial` for each, through which gradients reach it."""
        size = check_size("batch_size", batch_size, 0)
        device, dtype = placement(self)
        if self.initial is not None:
            return self._whole(self.initial).to(device, state_dtype(dtype)).repeat(size, 1, 1)
        return torch.zeros(size, *self._sizes, dtype=state_dtype(dtype), device=device)

    def raw_gates(self, x: Tensor) -> Tensor:
        """The gates before normalisation: [..., N, m, m+1] (BDLRU) or [..., N, m+1] for x [..., dim], in the fast
        memory format."""
        return project(self._gates(x), x, self._gate_layout, gates=True)

    def raw_values(self, x: Tensor) -> Tensor:
        """The values: [..., N, m] (BDLRU) or [..., N] for x [..., dim], in the fast memory format."""
        return project(self._values(x), x, self._value_layout, gates=False)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state [B, N, m] or None (`initial_state`) -> (y [B, dim], new state). Equal to
        `forward` on T = 1; hooks of the layer run as in `forward`."""
        hooked = is_hooked(self)  # then a hook may bring weights in or cast x, and forward checks the dtype
        check_input("x", x, ("B", self.dim), "[B, dim]", None if hooked else self._input_dtype(x))
        if hooked:
            y, state = self(x.unsqueeze(1), state)
            return y[:, 0], state
        values = self.raw_values(x)
        gates, shape = self.raw_gates(x).to(values.dtype), (x.shape[0], *self._sizes)
        state = self._start(x, None) if state is None else state
        if state is None:
            state = values.new_zeros(shape, dtype=state_dtype(values.dtype))
        key = normalization_key(self.normalization, self.hard)
        states, state = scan_step(self.recurrence, gates, values, state, shape, key, self.backend)
        return self._read_out_step(states, state), state

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)

    def _read_out(self, states: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
        """The output [B, T, dim] of the states of all steps; `state` is the one before them."""
        raise NotImplementedError

    def _read_out_step(self, states: Tensor, state: Tensor) -> Tensor:
        """The output [B, dim] of the states [B, N, ...] of one token, in the dtype of its values, and the new state."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, N, m] or None, cu_seqlens [S+1] or None -> (y [B, T, dim], new state).

        None stands for `initial_state`: every sequence, packed ones too, starts from zeros or from `initial`. The state
        is float32 (float64 for float64 inputs) and carries gradients; an H-LRU's has the newest first.
        """
        self._check_forward(x)
        state = self._start(x, cu_seqlens) if state is None else state
        states, final_state = projected_scan(
            self.recurrence, x, self._gates(x), self._values(x), state, self._sizes,
            normalization=self.normalization, hard=self.hard, cu_seqlens=cu_seqlens, backend=self.backend,
        )  # fmt: skip
        return self._read_out(states, state, cu_seqlens), final_state

    def _start(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor | None:
        """`initial` for every sequence of x, a view [S, N, m]; None where they start from zeros."""
        if self.initial is None:
            return None
        sequences = x.shape[0]
        if cu_seqlens is not None:
            check_cu_seqlens(cu_seqlens, sequences, x.shape[1])
            sequences = cu_seqlens.shape[0] - 1
        return self.initial.to(state_dtype(x.dtype)).expand(sequences, *self._sizes)

    def _whole(self, initial: Tensor) -> Tensor:
        """`initial` outside a call of the layer: gathered where it is sharded, brought in where it is offloaded."""
        if initial.is_meta and (hook := getattr(self, "_hf_hook", None)) is not None:
            hook.pre_forward(self)
            initial = self.get_parameter("initial").clone()
            hook.post_forward(self, None)
        gather = getattr(initial, "full_tensor", None)
        return initial if gather is None else gather()  # type: ignore[no-any-return]

    def _gates(self, x: Tensor) -> Projection:
        if self.selective:
            return as_projection(self.gates, x, self._gate_layout, gates=True)
        free = self.free_gates.movedim(0, -1).to(compute_dtype(x))  # before it is expanded
        free = in_fast_format(free[None, None], "gates")[0, 0]  # [N, *rows, column]
        return free.expand(*x.shape[:-1], *free.shape)

    def _values(self, x: Tensor) -> Projection:
        return as_projection(self.values, x, self._value_layout, gates=False)

    def _weights(self, x: Tensor) -> Tensor:
        """The normalised gates for x [B, T, dim]."""
        self._check_forward(x)
        return normalize(self.raw_gates(x), self.normalization, hard=self.hard)

    def _check_forward(self, x: Tensor) -> None:
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self._input_dtype(x))

    def _input_dtype(self, x: Tensor) -> torch.dtype | None:
        return input_dtype(self.values, x) if isinstance(x, Tensor) else None
