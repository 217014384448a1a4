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
from statemix.ops.triton.launcher import Launch
from statemix.ops.triton.portable import chunk_summary, large_block, large_order, small
from statemix.ops.triton.portable.common import Config, encode, is_nvidia, launch_of, warp_size

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


Strides = tuple[tuple[int, ...], ...]
"""Of several tensors."""


def _encode(strides: Strides, hlru: bool) -> Strides:
    """Encoded; an H-LRU's tensors [B, T, N, ...] have one row a block, which takes no step."""
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


Dtypes = tuple[torch.dtype | None, ...]
"""Of all tensors of a launch, the bounds last."""


@lru_cache(maxsize=4096)
def _scan_launch(
    kernels: PortableKernels, direction: str, sizes: tuple[int, ...], chunk: int | None, device: torch.device,
    strides: Strides, dtypes: Dtypes,
) -> Launch:  # fmt: skip
    """The launch of a scan of some sizes (S, N, m, T and columns)."""
    sequences, blocks, m, length, columns = sizes
    _check_m(m, MAX_M, "on the triton backend")
    layout = _layout(kernels.recurrence, direction, kernels.norm, m, columns, device)
    num_chunks = count_chunks(length, chunk)
    programs = sequences * num_chunks * triton.cdiv(blocks, layout.blocks)
    arguments = (_encode(strides, layout.config.HLRU), length, blocks, chunk or length, num_chunks)
    return launch_of(layout.kernel, programs, arguments, layout.threads, device, layout.config)


@lru_cache(maxsize=4096)
def _summary_launch(
    kernels: PortableKernels, sizes: tuple[int, ...], chunk: int, reverse: bool, device: torch.device,
    strides: Strides, dtypes: Dtypes,
) -> Launch:  # fmt: skip
    """The launch of a chunk summary of some sizes (B, T, N, m and columns)."""
    batch, length, blocks, m, columns = sizes
    layout = _layout(kernels.recurrence, "summary", kernels.norm, m, columns, device, reverse)
    num_chunks = count_chunks(length, chunk)
    # A large order's program moves one column of P, or the offset.
    shared = 1 if layout.config.BLOCK_T else m if reverse else m + 1
    programs = batch * num_chunks * triton.cdiv(blocks, layout.blocks) * shared
    arguments = (_encode(strides, layout.config.HLRU), length, blocks, chunk, num_chunks)
    return launch_of(layout.kernel, programs, arguments, layout.threads, device, layout.config)


class PortableKernels(NamedTuple):
    """The portable kernels for a recurrence and a normalisation's code; tensors of any strides."""

    recurrence: str
    norm: int

    def scan(
        self, direction: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...],
        cu_seqlens: Tensor | None = None, chunk: int | None = None, *, sums: Tensor | None = None,
    ) -> Launch:  # fmt: skip
        """Fill (states, final [S, N, m]) from (gates, values, initial), or, with the direction "backward", (d_gates,
        d_values, d_initial [S, N, m]) from (gates, values, states, initial, grad_states, grad_final), with the states
        that the forward pass wrote. Nothing is summed. Returns the launch.

        With `chunk`, rows are cut into K = `count_chunks` chunks that are walked side by side, and `initial`
        [B K, N, m] holds the state before each; it excludes `cu_seqlens`. Backward it is `grad_final` that holds the
        adjoint carried into the end of each; the states before a chunk are read from `states`.
        """
        tensors = (*inputs, *outputs)
        sizes = (*tensors[-1].shape, inputs[0].shape[1], inputs[0].shape[-1])
        strides = tuple(x.stride() for x in tensors)
        dtypes = (*(x.dtype for x in tensors), None if cu_seqlens is None else cu_seqlens.dtype)
        launch = _scan_launch(self, direction, sizes, chunk, inputs[0].device, strides, dtypes)
        launch(*self.pointers(inputs, outputs, cu_seqlens))
        return launch

    @staticmethod
    def pointers(
        inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], cu_seqlens: Tensor | None, sums: None = None
    ) -> tuple[Tensor | None, ...]:
        """The tensors of `scan` as the kernels take them."""
        return (*inputs, *outputs, cu_seqlens)

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
        sizes, strides = (batch, length, blocks, m, columns), (gates.stride(), inputs.stride())
        dtypes = (gates.dtype, inputs.dtype)
        launch = _summary_launch(self, sizes, chunk, reverse, gates.device, strides, dtypes)
        launch(gates, inputs, matrices, offsets)
        return matrices, offsets
