"""The portable path: plain Triton kernels for any GPU that Triton knows, any strides and any m up to 1024.

Small blocks and orders are walked in registers (`portable_block`, `portable_order`), large ones in tiles
(`portable_wide`). Arguments are taken as already checked; the caller allocates the outputs, and every number of them
is written. Nothing here waits for the GPU.
"""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from statemix.ops.triton import portable_block, portable_order, portable_ring, portable_wide
from statemix.ops.triton.portable_parts import encode, launch, warp_size

KINDS = {"bdlru": "block", "affine": "block", "hlru": "order"}
LARGEST = 1024
"""A tile holds at most 2**20 numbers."""

STEPS: dict[tuple[str, str], dict[int, int]] = {
    ("block", "forward"): {1: 16, 4: 8, 8: 4, 16: 2},
    ("block", "backward"): {1: 8, 8: 2, 16: 1},
    ("order", "forward"): {4: 8, 8: 4},
    ("order", "backward"): {1: 4, 4: 2, 8: 1},
}
"""The launch table: steps a tile, by the largest m that the entry is for; beyond the last, tiles take over.

A tile of the next steps waits in registers while one is walked: as many steps as they hold.
"""

KERNELS: dict[tuple[str, str], tuple[Any, Any]] = {
    ("block", "forward"): (portable_block.block_forward, portable_wide.wide_forward),
    ("block", "backward"): (portable_block.block_backward, portable_wide.wide_backward),
    ("order", "forward"): (portable_order.order_forward, portable_ring.ring_forward),
    ("order", "backward"): (portable_order.order_backward, portable_ring.ring_backward),
}
"""For each recurrence and direction the kernel that walks and the one for large m."""

Layout = tuple[int, int, dict[str, Any]]
"""Blocks a program, its threads, and the kernel's own constants."""


def find(table: dict[int, int], m: int) -> int | None:
    """The entry of a launch table for m, or None beyond the last."""
    return next((entry for limit, entry in table.items() if m <= limit), None)


def count_segments(length: int, segment: int | None) -> int:
    """Into how many segments a row of `length` steps is cut: at least one, even if it has no step."""
    return max(1, triton.cdiv(length, segment)) if segment else 1


def _walk_layout(kind: str, steps: int, m: int, columns: int, lanes: int) -> Layout:
    """A program is one warp."""
    constants = {"STEPS": steps, "LANES": lanes, "FAST": False}
    if kind == "order":
        return lanes, lanes, constants
    return lanes // m, lanes, {**constants, "COLUMNS": columns}


def _tile_layout(kind: str, m: int, columns: int) -> Layout:
    """For large m: 32 numbers of a tile a thread, as long as there are threads."""
    if m > LARGEST:
        raise ValueError(f"m: got {m}, expected at most {LARGEST} on the triton backend")
    size = triton.next_power_of_2(m)
    if kind == "order":
        return 32, min(size, 512), {"SIZE": size, "LANES": 32}
    return 1, min(size * size // 32, 512), {"SIZE": size, "COLUMNS": columns}


def _run(
    recurrence: str, direction: str, code: int, tensors: tuple[Tensor, ...], cu_seqlens: Tensor | None,
    segment: int | None,
) -> None:  # fmt: skip
    """Launch one kernel over all sequences (or segments) and blocks: gates come first, final or d_initial last."""
    kind = KINDS[recurrence]
    (sequences, blocks, m), length, columns = tensors[-1].shape, tensors[0].shape[1], tensors[0].shape[-1]
    walk, tile = KERNELS[kind, direction]
    steps = find(STEPS[kind, direction], m)
    if steps:
        lanes = warp_size(tensors[0].device)
        function, (each, threads, constants) = walk, _walk_layout(kind, steps, m, columns, lanes)
    else:
        function, (each, threads, constants) = tile, _tile_layout(kind, m, columns)
    cuts = count_segments(length, segment)
    strides = encode(tuple(x.stride() for x in tensors))
    arguments = (*tensors, strides, cu_seqlens, length, blocks, segment or length, cuts)
    programs = sequences * cuts * triton.cdiv(blocks, each)
    launch(function, programs, arguments, threads, {"CODE": code, "M": m, **constants})


def forward(
    recurrence: str,
    code: int,
    gates: Tensor,
    values: Tensor,
    initial: Tensor,
    states: Tensor,
    final: Tensor,
    cu_seqlens: Tensor | None = None,
    segment: int | None = None,
) -> None:
    """Fill `states` and `final` [S, N, m] of a recurrence; `code` is `rows.CODES[normalization]`.

    With `segment`, rows are cut into K = `count_segments` segments that are walked side by side, and `initial`
    [B*K, N, m] holds the state before each (see `portable_chunks`); it excludes `cu_seqlens`.
    """
    _run(recurrence, "forward", code, (gates, values, initial, states, final), cu_seqlens, segment)


def backward(
    recurrence: str,
    code: int,
    gates: Tensor,
    values: Tensor,
    states: Tensor,
    initial: Tensor,
    grad_states: Tensor,
    grad_final: Tensor,
    d_gates: Tensor,
    d_values: Tensor,
    d_initial: Tensor,
    cu_seqlens: Tensor | None = None,
    segment: int | None = None,
) -> None:
    """Fill the gradients of gates, values and the initial state [S, N, m]; `states` is what `forward` wrote.

    With `segment`, `grad_final` [B*K, N, m] holds the adjoint carried into the end of each segment; `initial` stays
    that of whole rows, because the states before a segment are read from `states`.
    """
    tensors = (gates, values, states, initial, grad_states, grad_final, d_gates, d_values, d_initial)
    _run(recurrence, "backward", code, tensors, cu_seqlens, segment)
