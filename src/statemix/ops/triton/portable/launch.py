"""Launching the portable kernels.

Small blocks and orders are walked in registers (`small_block`, `small_order`), large ones in tiles (`large_block`,
`large_order`). Arguments are taken as already checked; the caller allocates the outputs, and every number of them is
written. Nothing here waits for the GPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from statemix.ops.triton.launch_table import KERNELS
from statemix.ops.triton.portable import chunk_summary, large_block, large_order, small_block, small_order
from statemix.ops.triton.portable.common import Config, encode, is_nvidia, launch, warp_size

MAX_M = 1024
"""A tile holds at most 2**20 numbers."""

MAX_CHUNKED_M = {"bdlru": 16, "hlru": 32}
"""The largest m whose time can be cut into chunks."""

Table = dict[int, int]

BLOCK_T: dict[tuple[str, str], Table] = {
    ("bdlru", "forward"): {1: 16, 4: 8, 8: 4, 16: 2},
    ("bdlru", "backward"): {1: 8, 8: 2, 16: 1},
    ("bdlru", "summary"): {1: 8, 4: 4, 8: 2, 16: 1},
    ("hlru", "forward"): {4: 8, 8: 4},
    ("hlru", "backward"): {1: 4, 4: 2, 8: 1},
    ("hlru", "summary"): {2: 4, 4: 2, 8: 1},
}
"""The launch table: steps a tile, by the largest m that the entry is for; beyond the last, the kernels for large m.

A tile of the next steps waits in registers while one is walked: as many steps as they hold.
"""

SMALL_AND_LARGE: dict[tuple[str, str], tuple[Any, Any]] = {
    ("bdlru", "forward"): (small_block.small_block_forward, large_block.large_block_forward),
    ("bdlru", "backward"): (small_block.small_block_backward, large_block.large_block_backward),
    ("bdlru", "summary"): (chunk_summary.small_block_summary, None),
    ("hlru", "forward"): (small_order.small_order_forward, large_order.large_order_forward),
    ("hlru", "backward"): (small_order.small_order_backward, large_order.large_order_backward),
    ("hlru", "summary"): (chunk_summary.small_order_summary, chunk_summary.large_order_summary),
}
"""The kernel for small m and the one for large m."""


def count_chunks(length: int, chunk: int | None) -> int:
    """Into how many chunks a row of `length` steps is cut: at least one, even if it has no step."""
    return max(1, triton.cdiv(length, chunk)) if chunk else 1


def _check_m(m: int, limit: int, where: str) -> None:
    if m > limit:
        raise ValueError(f"m: got {m}, expected at most {limit} {where}")


class Layout(NamedTuple):
    """A kernel, the blocks that a program walks, its threads, and what it is compiled for."""

    kernel: Any
    blocks: int
    threads: int
    config: Config


@lru_cache(maxsize=1024)
def _layout(
    recurrence: str, task: str, norm: int, m: int, columns: int, device: torch.device, reverse: bool = False
) -> Layout:
    """A program of a kernel for small m is one warp; for large m a thread has 32 numbers of a tile, as long as there
    are threads."""
    kernels, warp = KERNELS[recurrence], warp_size(device)
    config = Config(norm, m, columns, REVERSE=reverse, FAST=is_nvidia(device), LANES=warp)
    hlru = kernels == "hlru"
    small, large = SMALL_AND_LARGE[kernels, task]
    block_t = next((steps for limit, steps in BLOCK_T[kernels, task].items() if m <= limit), None)
    if block_t:
        return Layout(small, warp if hlru else warp // m, warp, config._replace(BLOCK_T=block_t))
    size = triton.next_power_of_2(m)
    threads = warp if task == "summary" else min(size if hlru else size * size // 32, 512)
    return Layout(large, 32 if hlru else 1, threads, config._replace(SIZE=size, LANES=32))


class PortableKernels(NamedTuple):
    """The portable kernels for a recurrence and a normalisation's code; tensors of any strides."""

    recurrence: str
    norm: int

    def forward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None = None,
        chunk: int | None = None,
    ) -> None:  # fmt: skip
        """Fill (states, final [S, N, m]) from (gates, values, initial).

        With `chunk`, rows are cut into K = `count_chunks` chunks that are walked side by side, and `initial`
        [B K, N, m] holds the state before each; it excludes `cu_seqlens`.
        """
        self._scan("forward", (*inputs, *outputs), cu_seqlens, chunk)

    def backward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None = None,
        chunk: int | None = None, *, sums: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Fill (d_gates, d_values, d_initial [S, N, m]) from (gates, values, states, initial, grad_states, grad_final);
        `states` is what `forward` wrote. Nothing is summed.

        With `chunk`, `grad_final` [B K, N, m] holds the adjoint carried into the end of each chunk; `initial` stays
        that of whole rows, because the states before a chunk are read from `states`.
        """
        self._scan("backward", (*inputs, *outputs), cu_seqlens, chunk)

    def empty_sums(self, gates: Tensor, sequences: int) -> None:
        """These kernels leave no sums."""

    def _scan(
        self, task: str, tensors: tuple[Tensor, ...], cu_seqlens: Tensor | None, chunk: int | None
    ) -> None:
        """Launch one kernel over all sequences (or chunks) and blocks: gates come first, final or d_initial last."""
        gates, (sequences, blocks, m), length = tensors[0], tensors[-1].shape, tensors[0].shape[1]
        _check_m(m, MAX_M, "on the triton backend")
        layout = _layout(self.recurrence, task, self.norm, m, gates.shape[-1], gates.device)
        num_chunks = count_chunks(length, chunk)
        programs = sequences * num_chunks * triton.cdiv(blocks, layout.blocks)
        strides = encode(tuple(x.stride() for x in tensors))
        arguments = (*tensors, strides, cu_seqlens, length, blocks, chunk or length, num_chunks)
        launch(layout.kernel, programs, arguments, layout.threads, layout.config)

    def chunk_summary(
        self, gates: Tensor, inputs: Tensor, chunk: int, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(P [B K, N, m, m], o [B K, N, m]) of all chunks of `chunk` steps, float32; `inputs` are the values.

        With `reverse`, `inputs` is the gradient of the states, and o the adjoint that a chunk whose end has none
        carries out of its start. Errors: ValueError for m above `MAX_CHUNKED_M`.
        """
        kernels, (batch, length, blocks), columns = KERNELS[self.recurrence], gates.shape[:3], gates.shape[-1]
        m = gates.shape[-2] if kernels == "bdlru" else columns - 1
        _check_m(m, MAX_CHUNKED_M[kernels], "for a row cut into chunks")
        num_chunks = count_chunks(length, chunk)
        matrices = gates.new_empty((batch * num_chunks, blocks, m, m), dtype=torch.float32)
        offsets = gates.new_empty((batch * num_chunks, blocks, m), dtype=torch.float32)
        layout = _layout(self.recurrence, "summary", self.norm, m, columns, gates.device, reverse)
        # A large order's program moves one column of P, or the offset.
        shared = 1 if layout.config.BLOCK_T else m if reverse else m + 1
        programs = batch * num_chunks * triton.cdiv(blocks, layout.blocks) * shared
        tensors = (gates, inputs, matrices, offsets)
        strides = encode(tuple(x.stride() for x in tensors))
        launch(layout.kernel, programs, (*tensors, strides, length, blocks, chunk, num_chunks), layout.threads,
               layout.config)  # fmt: skip
        return matrices, offsets
