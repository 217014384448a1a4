"""Launching the Hopper kernels."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.ops.launch import LaunchConfig
from statemix.ops.layout import empty_fast, in_fast_format
from statemix.ops.triton.hopper.config import DIRECT, SINGLE_PASS, Call, copy_width, plan_scan, plan_summary
from statemix.ops.triton.launcher import ALIGNMENT, Launch

MIN_STEPS_PER_SUM = 16
"""Steps that a worker adds up, on average, where sums of gradients are worth storing."""


def prepare(recurrence: str, gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Gates and values as the kernels read them, and how many neighbouring numbers one copy takes.

    Tensors whose every step lies side by side are read in place, others are copied into the fast format. Rows that no
    copy of 4 bytes can take are read number by number (DIRECT).
    """
    laid_out = gates if _side_by_side(gates, gates.dim() - 2) else empty_fast(gates, "gates").copy_(gates)
    rows = values if _side_by_side(values, values.dim() - 1) else aligned(values)
    width = _copy_width(recurrence, laid_out, rows)
    return (laid_out, rows, width) if width else (in_fast_format(gates, "gates"), aligned(values), DIRECT)


def _copy_width(recurrence: str, gates: Tensor, values: Tensor) -> int:
    shapes = (gates.shape, gates.stride(), values.shape, values.stride())
    return copy_width(recurrence, values.element_size(), *shapes)


def _side_by_side(tensor: Tensor, last: int) -> bool:
    """Whether dimensions 2 … last lie side by side from an aligned address, rows, steps and planes anywhere."""
    inner, sizes, strides = 1, tensor.shape, tensor.stride()
    for d in range(last, 1, -1):
        if sizes[d] != 1 and strides[d] != inner:
            return False
        inner *= sizes[d]
    return tensor.data_ptr() % ALIGNMENT == 0


def aligned(tensor: Tensor) -> Tensor:
    """A contiguous tensor from an aligned address: as it is, or a copy."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


class TimePass(NamedTuple):
    """Which steps of its chunks a launch walks (`config`), and for how many steps these know their starts [B K, H]."""

    number: int
    memory_lengths: Tensor | None


SINGLE = TimePass(SINGLE_PASS, None)


@lru_cache(maxsize=4096)
def _scan_launch(
    direction: str, call: Call, config: LaunchConfig, time_pass: int, d_strides: tuple[int, ...], summed: bool,
    dtypes: tuple[torch.dtype | None, ...],
) -> Launch:  # fmt: skip
    """The launch of `HopperKernels.scan`, for numbers and bounds of `dtypes`."""
    from statemix.ops.triton.hopper.backward import hopper_backward
    from statemix.ops.triton.hopper.forward import hopper_forward

    kernel = hopper_forward if direction == "forward" else hopper_backward
    plan = plan_scan(call, config, time_pass, *d_strides, summed=summed)
    return Launch(kernel, plan.programs, *plan.integers, plan.config, **plan.options)


@lru_cache(maxsize=4096)
def _summary_launch(call: Call, reverse: bool, dtype: torch.dtype) -> Launch:
    """The launch of `HopperKernels.chunk_summary`, for numbers of a dtype."""
    from statemix.ops.triton.hopper.chunk_summary import hopper_chunk_summary

    plan = plan_summary(call, reverse)
    return Launch(hopper_chunk_summary, plan.programs, *plan.integers, plan.config, **plan.options)


class HopperKernels(NamedTuple):
    """The Hopper kernels for a recurrence, a normalisation's code, a launch configuration and the width of copies.

    All tensors of numbers are of one dtype; `gates` and `values` come from `prepare`, the others are `aligned`.
    """

    recurrence: str
    norm: int
    launch: LaunchConfig
    width: int

    def _call(self, gates: Tensor, values: Tensor, cu_seqlens: Tensor | None, chunk: int | None) -> Call:
        sequences = None if cu_seqlens is None else cu_seqlens.shape[0] - 1
        shapes = (gates.shape, gates.stride(), values.shape, values.stride())
        return Call(self.recurrence, self.norm, self.width, sequences, chunk, *shapes)

    def scan(
        self, direction: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None,
        chunk: int | None, time_pass: TimePass = SINGLE, *, sums: Tensor | None = None,
    ) -> Launch:  # fmt: skip
        """Fill (states, final [S, N, m]), contiguous, from (gates, values, initial), or, with the direction "backward",
        (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final); d_gates and
        d_values are in the fast format, but their steps may lie further apart, and `sums` (`empty_sums`) receives sums
        of the gates' gradients, which add up to those over all steps and sequences.

        With chunks, `initial` (backward: `grad_final`) is [B K, N, m]. In a local pass, the last output is [B K, N, m]
        too; in a fix-up pass it is not written. Returns the launch.
        """
        strides = (outputs[0].stride(1), outputs[1].stride(1)) if direction == "backward" else ()
        call = self._call(inputs[0], inputs[1], cu_seqlens, chunk)
        dtypes = (inputs[0].dtype, None if cu_seqlens is None else cu_seqlens.dtype)
        launch = _scan_launch(
            direction, call, self.launch, time_pass.number, strides, sums is not None, dtypes
        )
        launch(*self.pointers(inputs, outputs, cu_seqlens, sums, time_pass.memory_lengths))
        return launch

    @staticmethod
    def pointers(
        inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None, sums: Tensor | None = None,
        memory_lengths: Tensor | None = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The tensors of `scan` as the kernels take them; any tensor serves as bounds or sums where there are none."""
        if len(inputs) == 6:
            outputs = (*outputs, outputs[2] if sums is None else sums)
        return inputs, outputs, inputs[-1] if cu_seqlens is None else cu_seqlens, memory_lengths

    def empty_sums(self, gates: Tensor, sequences: int) -> Tensor | None:
        """Where `backward` may leave the sums of the gates' gradients of each sequence and worker: float32
        [S num_workers, COLUMNS, H]; None where they would be more than a fraction of the gradients themselves."""
        batch, length, *rows, columns = gates.shape
        parts = sequences * self.launch.num_workers
        if parts * MIN_STEPS_PER_SUM > batch * length:
            return None
        return gates.new_empty((parts, columns, math.prod(rows)), dtype=torch.float32)

    def chunk_summary(
        self, gates: Tensor, inputs: Tensor, chunk: int, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """What each chunk does to the state (or, reverse, to the carry) it begins with: [B K, N, m, m], [B K, N, m],
        and its memory length [B K, H]; None where no wide copy suits the rows.

        `inputs` are the values, or (reverse) the gradients of the states.
        """
        width = _copy_width(self.recurrence, gates, inputs)
        if not width:
            return None
        call = self._replace(width=width)._call(gates, inputs, None, chunk)
        plan = plan_summary(call, reverse)
        chunks, blocks, m = inputs.shape[0] * plan.integers[2], inputs.shape[2], plan.config.M
        matrices = gates.new_empty((chunks, blocks, m, m), dtype=torch.float32)
        offsets = gates.new_empty((chunks, blocks, m), dtype=torch.float32)
        memory_lengths = gates.new_empty((chunks, plan.config.H), dtype=torch.int32)
        launch = _summary_launch(call, reverse, gates.dtype)
        launch(gates, inputs, matrices, offsets, memory_lengths)
        return matrices, offsets, memory_lengths
