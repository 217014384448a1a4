"""Launching the portable kernels.

Small blocks and orders are walked in registers (`small`), large ones in tiles (`large_block`, `large_order`). Arguments
are taken as already checked; the caller allocates the outputs, and every number of them is written. Nothing here waits
for the GPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from statemix.ops.launch import KERNELS
from statemix.ops.triton.portable import chunk_summary, large_block, large_order, small
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

SMALL: dict[str, Any] = {
    "forward": small.small_forward,
    "backward": small.small_backward,
    "summary": chunk_summary.small_summary,
}
LARGE: dict[tuple[str, str], Any] = {
    ("bdlru", "forward"): large_block.large_block_forward,
    ("bdlru", "backward"): large_block.large_block_backward,
    ("hlru", "forward"): large_order.large_order_forward,
    ("hlru", "backward"): large_order.large_order_backward,
    ("hlru", "summary"): chunk_summary.large_order_summary,
}
"""The kernels for small m and for large m."""


def count_chunks(length: int, chunk: int | None) -> int:
    """Into how many chunks a row of `length` steps is cut: at least one, even if it has no step."""
    return max(1, triton.cdiv(length, chunk)) if chunk else 1


def _check_m(m: int, limit: int, where: str) -> None:
    if m > limit:
        raise ValueError(f"m: got {m}, expected at most {limit} {where}")


def _strides(tensors: tuple[Tensor, ...], hlru: bool) -> tuple[tuple[int, ...], ...]:
    """Encoded; an H-LRU's tensors [B, T, N, ...] have one row a block, which takes no step."""
    strides = (x.stride() for x in tensors)
    return encode(tuple((*each[:3], 0, *each[3:]) if hlru else each for each in strides))


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
    kernels, warp, size = KERNELS[recurrence], warp_size(device), triton.next_power_of_2(m)
    hlru = kernels == "hlru"
    config = Config(norm, m, columns, hlru, LANES=warp, SIZE=size, REVERSE=reverse, FAST=is_nvidia(device))
    block_t = next((steps for limit, steps in BLOCK_T[kernels, task].items() if m <= limit), None)
    if block_t:
        return Layout(SMALL[task], warp if hlru else warp // m, warp, config._replace(BLOCK_T=block_t))
    threads = warp if task == "summary" else min(size if hlru else size * size // 32, 512)
    return Layout(LARGE[kernels, task], 32 if hlru else 1, threads, config._replace(LANES=32))


class PortableKernels(NamedTuple):
    """The portable kernels for a recurrence and a normalisation's code; tensors of any strides."""

    recurrence: str
    norm: int

    def scan(
        self, direction: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...],
        cu_seqlens: Tensor | None = None, chunk: int | None = None, *, sums: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Fill (states, final [S, N, m]) from (gates, values, initial), or, with the direction "backward", (d_gates,
        d_values, d_initial [S, N, m]) from (gates, values, states, initial, grad_states, grad_final), with the states
        that the forward pass wrote. Nothing is summed.

        With `chunk`, rows are cut into K = `count_chunks` chunks that are walked side by side, and `initial`
        [B K, N, m] holds the state before each; it excludes `cu_seqlens`. Backward it is `grad_final` that holds the
        adjoint carried into the end of each; the states before a chunk are read from `states`.
        """
        tensors = (*inputs, *outputs)
        gates, (sequences, blocks, m), length = tensors[0], tensors[-1].shape, tensors[0].shape[1]
        _check_m(m, MAX_M, "on the triton backend")
        layout = _layout(self.recurrence, direction, self.norm, m, gates.shape[-1], gates.device)
        num_chunks = count_chunks(length, chunk)
        programs = sequences * num_chunks * triton.cdiv(blocks, layout.blocks)
        strides = _strides(tensors, layout.config.HLRU)
        arguments = (*tensors, strides, cu_seqlens, length, blocks, chunk or length, num_chunks)
        launch(layout.kernel, programs, arguments, layout.threads, layout.config)

    def empty_sums(self, gates: Tensor, sequences: int) -> None:
        """These kernels leave no sums."""

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
        strides = _strides((gates, inputs), layout.config.HLRU)
        arguments = (gates, inputs, matrices, offsets, strides, length, blocks, chunk, num_chunks)
        launch(layout.kernel, programs, arguments, layout.threads, layout.config)
        return matrices, offsets
