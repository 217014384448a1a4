"""Which kernels run a call: one token, kernels that take turns, portable kernels; whole sequences or segments."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.ops.triton import portable, portable_chunks, split, step, turns
from statemix.ops.triton.rows import CODES
from statemix.ops.triton.table import KINDS, MANY, Key, choose


@lru_cache(maxsize=64)
def _gpu(index: int) -> tuple[str, tuple[int, int]]:
    """Name and compute capability; ROCm's capabilities are not CUDA's and match no measured table."""
    capability = torch.cuda.get_device_capability(index) if torch.version.hip is None else (0, 0)
    return torch.cuda.get_device_name(index), capability


class Portable(NamedTuple):
    """The portable kernels, bound to a recurrence and a normalisation's code; any strides."""

    recurrence: str
    code: int

    def forward(self, *arguments: Any) -> None:
        """As `turns.Kernels.forward`."""
        portable.forward(self.recurrence, self.code, *arguments)

    def backward(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        cu_seqlens: Tensor | None,
        segment: int | None,
        sums: Tensor | None = None,
    ) -> None:
        """As `turns.Kernels.backward`; nothing is summed."""
        gates, values, states, initial, grad_states, grad_final = inputs
        d_gates, d_values, d_initial = outputs
        portable.backward(
            self.recurrence, self.code, gates, values, states, initial, grad_states, grad_final,
            d_gates, d_values, d_initial, cu_seqlens, segment,
        )  # fmt: skip

    def room_for_sums(self, gates: Tensor, sequences: int) -> None:
        """There is none."""

    def products(
        self, gates: Tensor, drives: Tensor, segment: int, reverse: bool
    ) -> tuple[Tensor, Tensor, None]:
        """As `turns.Kernels.products`; all offsets are there."""
        matrices, offsets = portable_chunks.products(
            self.recurrence, self.code, gates, drives, segment, reverse=reverse
        )
        return matrices, offsets, None


def _kernels(
    recurrence: str, normalization: str, direction: str, gates: Tensor, values: Tensor, m: int, lanes: int
) -> tuple[Portable | turns.Kernels, Tensor, Tensor]:
    """The kernels for a call, and gates and values as they take them."""
    code = CODES[normalization]
    if values.is_cuda and m <= turns.LARGEST[recurrence]:
        key = Key(KINDS[recurrence], direction, m, values.element_size(), lanes >= MANY)
        launch = choose(key, *_gpu(values.device.index))
        if launch is not None:
            gates, values, width = turns.prepare(recurrence, gates, values)
            return turns.Kernels(recurrence, code, launch, width), gates, values
    return Portable(recurrence, code), gates, values


def _plan(
    recurrence: str, values: Tensor, initial: Tensor, cu_seqlens: Tensor | None
) -> tuple[int | None, int]:
    """Steps of a segment (None: no cut), and the lanes that then run side by side."""
    lanes, length = initial.shape[0] * values.shape[2:].numel(), values.shape[1]
    segment = None
    if cu_seqlens is None:
        segment = split.segment_length(KINDS[recurrence], initial.shape[-1], lanes, length)
    return segment, lanes * (-(-length // segment) if segment else 1)


def forward(
    recurrence: str, normalization: str, gates: Tensor, values: Tensor, initial: Tensor, states: Tensor, final: Tensor,
    cu_seqlens: Tensor | None,
) -> None:  # fmt: skip
    """Fill `states` and `final`, both contiguous."""
    if values.shape[1] == 1 and cu_seqlens is None:
        step.step(recurrence, CODES[normalization], gates, values, initial, states, final)
        return
    segment, lanes = _plan(recurrence, values, initial, cu_seqlens)
    kernels, gates, values = _kernels(
        recurrence, normalization, "forward", gates, values, initial.shape[-1], lanes
    )
    if segment is None:
        kernels.forward(gates, values, initial, states, final, cu_seqlens, None)
    else:
        split.forward(kernels, gates, values, initial, states, final, segment)


def backward(
    recurrence: str, normalization: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...],
    cu_seqlens: Tensor | None, summed: bool = False,
) -> Tensor | None:  # fmt: skip
    """Fill (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final).

    summed: returns sums of the gates' gradients [parts, C, H] in float32, or None where these kernels make none.
    """
    gates, values, states, initial, grad_states, grad_final = inputs
    segment, lanes = _plan(recurrence, values, initial, cu_seqlens)
    kernels, gates, values = _kernels(
        recurrence, normalization, "backward", gates, values, initial.shape[-1], lanes
    )
    states, grad_states = turns.plain(states), turns.plain(grad_states)
    inputs = (gates, values, states, initial, grad_states, grad_final)
    if segment is not None:
        split.backward(kernels, inputs, outputs, segment)
        return None
    sums = kernels.room_for_sums(gates, initial.shape[0]) if summed else None
    kernels.backward(inputs, outputs, cu_seqlens, None, sums=sums)
    return sums
