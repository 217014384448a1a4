"""Launching the Hopper kernels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from statemix.ops.layout import empty_fast, in_fast_format
from statemix.ops.triton.hopper.config import (
    DIRECT,
    FIXUP_PASS,
    LOCAL_PASS,
    SINGLE_PASS,
    Call,
    copy_width,
    plan_scan,
    plan_summary,
)
from statemix.ops.triton.launch_table import LaunchConfig

ALIGNMENT = 16
"""Bytes that divide every address."""

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


def local_pass(memory_lengths: Tensor) -> TimePass:
    """The chunks that forget their start, from a zero state."""
    return TimePass(LOCAL_PASS, memory_lengths)


def fixup_pass(memory_lengths: Tensor) -> TimePass:
    """Chunks from their true states, as far as these are remembered."""
    return TimePass(FIXUP_PASS, memory_lengths)


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

    def forward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None,
        chunk: int | None, time_pass: TimePass = SINGLE,
    ) -> None:  # fmt: skip
        """Fill (states, final [S, N, m]), contiguous, from (gates, values, initial); with chunks, `initial` is
        [B K, N, m].

        In a local pass, `final` is [B K, N, m] too; in a fix-up pass it is not written.
        """
        from statemix.ops.triton.hopper.forward import hopper_forward

        call = self._call(inputs[0], inputs[1], cu_seqlens, chunk)
        plan = plan_scan(call, self.launch, time_pass.number)
        bounds = inputs[2] if cu_seqlens is None else cu_seqlens
        hopper_forward[(plan.programs,)](
            inputs, outputs, bounds, time_pass.memory_lengths, *plan.integers, CFG=plan.config, **plan.options
        )

    def backward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None,
        chunk: int | None, time_pass: TimePass = SINGLE, sums: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Fill (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final); with
        chunks, `grad_final` is [B K, N, m].

        d_gates and d_values are in the fast format, but their steps may lie further apart. In a local pass, d_initial
        is [B K, N, m] too; in a fix-up pass it is not written. `sums` (`empty_sums`) receives sums of the gates'
        gradients, which add up to those over all steps and sequences.
        """
        from statemix.ops.triton.hopper.backward import hopper_backward

        initial, strides = inputs[3], (outputs[0].stride(1), outputs[1].stride(1))
        call = self._call(inputs[0], inputs[1], cu_seqlens, chunk)
        plan = plan_scan(call, self.launch, time_pass.number, *strides, summed=sums is not None)
        bounds = initial if cu_seqlens is None else cu_seqlens
        outputs = (*outputs, initial if sums is None else sums)
        hopper_backward[(plan.programs,)](
            inputs, outputs, bounds, time_pass.memory_lengths, *plan.integers, CFG=plan.config, **plan.options
        )

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
        from statemix.ops.triton.hopper.chunk_summary import hopper_chunk_summary

        width = _copy_width(self.recurrence, gates, inputs)
        if not width:
            return None
        plan = plan_summary(self._replace(width=width)._call(gates, inputs, None, chunk), reverse)
        chunks, blocks, m = inputs.shape[0] * plan.integers[2], inputs.shape[2], plan.config.M
        matrices = gates.new_empty((chunks, blocks, m, m), dtype=torch.float32)
        offsets = gates.new_empty((chunks, blocks, m), dtype=torch.float32)
        memory_lengths = gates.new_empty((chunks, plan.config.H), dtype=torch.int32)
        hopper_chunk_summary[(plan.programs,)](
            gates, inputs, matrices, offsets, memory_lengths, *plan.integers, CFG=plan.config, **plan.options
        )
        return matrices, offsets, memory_lengths
