"""Launching the kernels that take turns (`turns_forward`, `turns_backward`)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.ops.layout import empty_fast, in_fast_format
from statemix.ops.triton.table import Turns


class Products(NamedTuple):
    """Warps of a program, steps of a tile, stages in shared memory, steps of a tile while the bound is walked."""

    warps: int
    steps: int
    stages: int
    look: int


LANES = {3: 24, 5: 20, 6: 24, 7: 28, 9: 18, 10: 20, 11: 22, 12: 24, 13: 26, 14: 28, 15: 30}
"""Lanes of a warp in use for block sizes that do not divide 32: whole blocks, in bfloat16 a multiple of 4 bytes."""

PRODUCTS = {
    1: Products(1, 16, 3, 32),
    2: Products(1, 8, 3, 16),
    4: Products(2, 4, 4, 8),
    8: Products(1, 2, 4, 16),
    16: Products(1, 1, 4, 8),
}
"""Launches of the products of segments, for m up to the number given."""

ALIGNMENT = 16
"""Bytes that divide every address."""

DIRECT = 0
"""The width that means: no copies, every number is loaded by the lane that wants it."""

LEAST_SUMMED = 16
"""Steps that a worker adds up, on average, where sums of gradients are worth storing."""

LARGEST = {"bdlru": 16, "affine": 16, "hlru": 16}
"""The largest block size or order that these kernels take."""


def lanes(recurrence: str, m: int, width: int) -> int:
    """How many lanes of a warp own a row or a channel; whole blocks."""
    if recurrence == "hlru":
        return 32
    return 32 // m * m if width == DIRECT else LANES.get(m, 32)


def prepare(recurrence: str, gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Gates and values as the kernels read them, and how many neighbouring numbers one copy takes.

    Tensors whose every step lies side by side are read in place, others are copied into the fast format. Rows that no
    copy of 4 bytes can take are read number by number (DIRECT).
    """
    laid_out = gates if _side_by_side(gates, gates.dim() - 2) else empty_fast(gates, "gates").copy_(gates)
    rows = values if _side_by_side(values, values.dim() - 1) else plain(values)
    width = vector(recurrence, laid_out, rows)
    return (laid_out, rows, width) if width else (in_fast_format(gates, "gates"), plain(values), DIRECT)


def vector(recurrence: str, gates: Tensor, values: Tensor) -> int:
    """How many neighbouring numbers one copy may take: all strides and the lanes are multiples of it. 0: not even 4
    bytes."""
    shapes = (gates.shape, gates.stride(), values.shape, values.stride())
    return _vector(recurrence, values.element_size(), *shapes)


def _side_by_side(tensor: Tensor, last: int) -> bool:
    """Whether dimensions 2 … last lie side by side from an aligned address, rows, steps and planes anywhere."""
    inner, sizes, strides = 1, tensor.shape, tensor.stride()
    for d in range(last, 1, -1):
        if sizes[d] != 1 and strides[d] != inner:
            return False
        inner *= sizes[d]
    return tensor.data_ptr() % ALIGNMENT == 0


def plain(tensor: Tensor) -> Tensor:
    """A contiguous tensor from an aligned address: as it is, or a copy."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


Sizes = tuple[int, ...]
"""A shape, or strides."""


def _size(recurrence: str, gates: Sizes) -> int:
    """m, from the shape of the gates."""
    return gates[-1] - (recurrence != "affine")


def _strides(gates: Sizes, gate_strides: Sizes, values: Sizes, value_strides: Sizes) -> Sizes:
    """Of rows, steps and planes of the gates, of rows and steps of the values; of one element none matters."""
    gb, gt = (0 if gates[d] == 1 else gate_strides[d] for d in (0, 1))
    vb, vt = (0 if values[d] == 1 else value_strides[d] for d in (0, 1))
    return gb, gt, gate_strides[-1], vb, vt


@lru_cache(maxsize=4096)
def _vector(
    recurrence: str, element: int, gates: Sizes, gate_strides: Sizes, values: Sizes, value_strides: Sizes
) -> int:
    used = lanes(recurrence, _size(recurrence, gates), 1)
    sizes = (used, math.prod(values[2:]), *_strides(gates, gate_strides, values, value_strides))
    width = 16 // element
    while any(size % width for size in sizes):
        width //= 2
    return width if width * element >= 4 else 0


@lru_cache(maxsize=4096)
def _arguments(
    kernels: Kernels, warps: int, sequences: int | None, segment: int | None,
    gates: Sizes, gate_strides: Sizes, values: Sizes, value_strides: Sizes,
) -> tuple[int, Sizes, dict[str, Any]]:  # fmt: skip
    """Programs, the integers, and what is fixed at compilation; `sequences` is the number of packed ones."""
    batch, length = values[:2]
    recurrence, m = kernels.recurrence, _size(kernels.recurrence, gates)
    used, channels = lanes(recurrence, m, kernels.width), math.prod(values[2:])
    groups = -(-channels // (warps * used))
    segment = segment or length
    segments = -(-length // segment)
    strides = _strides(gates, gate_strides, values, value_strides)
    fixed = {
        "H": channels, "m": m, "LANES": used, "CODE": kernels.code, "GATED": recurrence != "affine",
        "ORDER": recurrence == "hlru", "PACKED": sequences is not None, "VEC": kernels.width,
    }  # fmt: skip
    programs = groups * (batch * segments if sequences is None else sequences)
    return (
        programs,
        (length, segment, segments, groups, *(s // max(1, kernels.width) for s in strides)),
        fixed,
    )


@lru_cache(maxsize=1024)
def _shape(launch: Turns) -> dict[str, Any]:
    """A launch as the kernels' arguments."""
    sizes = {"W": launch.workers, "G": launch.warps, "U": launch.steps, "S": launch.stages}
    split = {
        "WARPS": (launch.warps,) * launch.workers,
        "REGS": (launch.worker_registers,) * launch.workers,
    }
    return {**sizes, **split, "num_warps": 4, "maxnreg": launch.registers, "enable_fp_fusion": False}


class Phase(NamedTuple):
    """Which steps of its segments a launch walks (`turns_common`), and the segments' horizons [B K, H]."""

    number: int
    horizons: Tensor | None


WHOLE_SEQUENCES = Phase(0, None)


def blind(horizons: Tensor) -> Phase:
    """The segments that forget, from a zero state."""
    return Phase(1, horizons)


def correct(horizons: Tensor) -> Phase:
    """Segments from their true states, as far as their horizons."""
    return Phase(2, horizons)


class Kernels(NamedTuple):
    """The kernels that take turns, bound to a recurrence, a normalisation's code, a launch and the width of copies.

    All tensors of numbers are of one dtype; `gates` and `values` come from `prepare`, the others are `plain`.
    """

    recurrence: str
    code: int
    launch: Turns
    width: int

    def forward(
        self, gates: Tensor, values: Tensor, initial: Tensor, states: Tensor, final: Tensor,
        cu_seqlens: Tensor | None, segment: int | None, phase: Phase = WHOLE_SEQUENCES,
    ) -> None:  # fmt: skip
        """Fill states and final [S, N, m] (contiguous); with segments, `initial` is [B K, N, m].

        In the phase BLIND, `final` is [B K, N, m] too; in the phase CORRECT it is not written.
        """
        from statemix.ops.triton.turns_forward import forward

        programs, integers, fixed = self._arguments(gates, values, cu_seqlens, segment)
        bounds = initial if cu_seqlens is None else cu_seqlens
        forward[(programs,)](
            gates,
            values,
            initial,
            states,
            final,
            bounds,
            phase.horizons,
            *integers,
            **fixed,
            **_shape(self.launch),
            PHASE=phase.number,
        )

    def backward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None,
        segment: int | None, phase: Phase = WHOLE_SEQUENCES, sums: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Fill (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final); with
        segments, `grad_final` is [B K, N, m].

        d_gates and d_values are in the fast format, but their steps may lie further apart. In the phase BLIND,
        d_initial is [B K, N, m] too; in the phase CORRECT it is not written. `sums` (`room_for_sums`) receives sums
        of the gates' gradients, which add up to those over all steps and sequences.
        """
        from statemix.ops.triton.turns_backward import backward

        gates, values, states, initial, grad_states, grad_final = inputs
        programs, integers, fixed = self._arguments(gates, values, cu_seqlens, segment)
        rows = self.launch.steps + (fixed["m"] - 1 if fixed["ORDER"] else 0)
        bounds = initial if cu_seqlens is None else cu_seqlens
        pitches = {"GP": outputs[0].stride(1), "VP": outputs[1].stride(1)}
        backward[(programs,)](
            gates, values, states, initial, grad_states, grad_final, *outputs,
            initial if sums is None else sums, bounds, phase.horizons, *integers, PHASE=phase.number,
            R=1 << (rows - 1).bit_length(), SUMMED=sums is not None, **pitches, **fixed, **_shape(self.launch),
        )  # fmt: skip

    def room_for_sums(self, gates: Tensor, sequences: int) -> Tensor | None:
        """Where `backward` may leave the sums of the gates' gradients of each sequence and worker: float32
        [S W, C, H]; None where they would be more than a fraction of the gradients themselves."""
        batch, length, *rows, columns = gates.shape
        parts = sequences * self.launch.workers
        if parts * LEAST_SUMMED > batch * length:
            return None
        return gates.new_empty((parts, columns, math.prod(rows)), dtype=torch.float32)

    def products(
        self, gates: Tensor, drives: Tensor, segment: int, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What each segment does to the state (or, reverse, to the carry) it begins with: [B K, N, m, m], [B K, N, m],
        and its horizons [B K, H], or None where every offset is there.

        `drives` are the values, or (reverse) the gradients of the states.
        """
        from statemix.ops.triton import portable_chunks
        from statemix.ops.triton.turns_products import products

        launch = PRODUCTS[next(limit for limit in PRODUCTS if _size(self.recurrence, gates.shape) <= limit)]
        width = vector(self.recurrence, gates, drives)
        if not width:
            matrices, offsets = portable_chunks.products(
                self.recurrence, self.code, gates, drives, segment, reverse=reverse
            )
            return matrices, offsets, None
        copying = self._replace(width=width)
        programs, integers, fixed = copying._arguments(gates, drives, None, segment, launch.warps)
        sequences, blocks, m = drives.shape[0] * integers[2], drives.shape[2], fixed["m"]
        matrices = gates.new_empty((sequences, blocks, m, m), dtype=torch.float32)
        offsets = gates.new_empty((sequences, blocks, m), dtype=torch.float32)
        horizons = gates.new_empty((sequences, fixed["H"]), dtype=torch.int32)
        fixed = {name: value for name, value in fixed.items() if name != "PACKED"}
        products[(programs,)](
            gates, drives, matrices, offsets, horizons, *integers, **fixed, REVERSE=reverse, G=launch.warps,
            U=launch.steps, S=launch.stages, LOOK=launch.look, num_warps=launch.warps, enable_fp_fusion=False,
        )  # fmt: skip
        return matrices, offsets, horizons

    def _arguments(
        self,
        gates: Tensor,
        values: Tensor,
        cu_seqlens: Tensor | None,
        segment: int | None,
        warps: int | None = None,
    ) -> tuple[int, Sizes, dict[str, Any]]:
        sequences = None if cu_seqlens is None else cu_seqlens.shape[0] - 1
        shapes = (gates.shape, gates.stride(), values.shape, values.stride())
        return _arguments(self, warps or self.launch.warps, sequences, segment, *shapes)
