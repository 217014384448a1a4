"""Long sequences with few lanes: where time is cut into chunks, and the states at the chunks' starts."""

# mypy: ignore-errors
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from statemix.ops.triton.launcher import Launch

MAX_CHUNKED_LANES = 2048
"""Up to this many lanes (rows or channels of all sequences) a GPU is too empty to walk time whole."""

MIN_LENGTH = 1024
"""The shortest sequence worth cutting."""

TARGET_LANES = 8192
"""Lanes of all chunks together: enough to fill a GPU; more would make chunks shorter, and gates need time to forget."""

MIN_CHUNK = 192
"""The shortest chunk."""

MIN_CHUNK_PER_M = 64
"""A chunk has at least m times as many steps: its matrix is then a few percent of its gates."""

MAX_M = 16
"""The largest block size or order whose matrices are worth taking."""


class Worth(NamedTuple):
    """When cutting is faster: from so many chunks a sequence on it is even where every matrix has to be taken; chunks
    of so many steps rarely need one, since gates of the usual size have forgotten before."""

    chunks: int
    forgetting: int


WORTH: dict[str, dict[int, Worth]] = {
    "bdlru": {1: Worth(4, 128), 2: Worth(5, 128), 4: Worth(6, 256), 8: Worth(8, 512), 16: Worth(14, 1024)},
    "hlru": {1: Worth(4, 128), 2: Worth(5, 256), 4: Worth(6, 1024), 8: Worth(8, 2048), 16: Worth(20, 8192)},
}
"""By kernels (`launch.KERNELS`), for m up to the number given; measured on an H100."""


def chunk_length(kernels: str, m: int, lanes: int, length: int) -> int | None:
    """Steps of a chunk, or None if the sequences are walked whole."""
    if lanes == 0 or lanes > MAX_CHUNKED_LANES or length < MIN_LENGTH or m > MAX_M:
        return None
    even = -(-length * lanes // TARGET_LANES)
    steps = -(-max(MIN_CHUNK, MIN_CHUNK_PER_M * m, even) // 64) * 64
    worth = next(entry for limit, entry in WORTH[kernels].items() if m <= limit)
    return steps if steps >= worth.forgetting or length >= worth.chunks * steps else None


LOADED = 64
"""Numbers of matrices that a lane has on their way from memory at once."""


@triton.jit
def inter_chunk_scan_kernel(
    matrices, offsets, initial, starts, last, num_chunks, N, m, row, column, direction,
    COLUMNS: tl.constexpr, LANES: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program: LANES numbers of whole blocks of one row. `row` and `column` are the strides of a block's matrix;
    `direction` is 1 or (from the last chunk to the first) -1. BLOCK_K chunks are loaded at a time."""
    per_program = LANES // m * m
    groups = tl.cdiv(N * m, per_program)
    b = (tl.program_id(0) // groups).to(tl.int64)
    lane = tl.arange(0, LANES)
    channel = tl.program_id(0) % groups * per_program + lane
    ok = (lane < per_program) & (channel < N * m)
    first, own = lane // m * m, lane % m
    h = tl.load(initial + b * N * m + channel, mask=ok, other=0.0)
    place = (b * num_chunks + (num_chunks - 1 if direction < 0 else 0)) * N * m
    for k0 in range(0, num_chunks, BLOCK_K):
        rows, inputs, ahead = (), (), place
        for k in tl.static_range(BLOCK_K):  # all loads first: a store would hold them back
            there = ok & (k0 + k < num_chunks)
            entries = ()
            at = matrices + ahead * m + channel // m * (m * m) + own * row
            for j in tl.static_range(COLUMNS):
                entries = entries + (tl.load(at + j * column, mask=there & (j < m), other=0.0),)
            rows = rows + (entries,)
            inputs = inputs + (tl.load(offsets + ahead + channel, mask=there, other=0.0),)
            ahead += direction * N * m
        for k in tl.static_range(BLOCK_K):
            there = ok & (k0 + k < num_chunks)
            tl.store(starts + place + channel, h, mask=there)
            total = inputs[k]
            for j in tl.static_range(COLUMNS):
                product = rows[k][j] * tl.gather(h, tl.minimum(first + j, LANES - 1), 0)
                total = tl.where(j < m, total + product, total)  # 0 * NaN of another block is not a term
            h = tl.where(there, total, h)
            place += direction * N * m
    tl.store(last + b * N * m + channel, h, mask=ok)


def inter_chunk_scan(
    matrices: Tensor, offsets: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """h_{k+1} = P_k h_k + o_k over the chunks of every row; reverse: c_k = P_k^T c_{k+1} + o_k.

    matrices [B K, N, m, m] and offsets [B K, N, m], contiguous; initial [B, N, m], contiguous.
    Returns what each chunk begins with [B K, N, m], and what comes out of the last [B, N, m] (reverse: ends with,
    and comes out of the first). All float32.
    """
    batch, blocks, m = initial.shape
    starts, last = torch.empty_like(offsets), torch.empty_like(initial)
    launch = _inter_chunk_launch(batch, offsets.shape[0] // batch, blocks, m, reverse)
    launch(matrices, offsets, initial, starts, last)
    return starts, last


@lru_cache(maxsize=4096)
def _inter_chunk_launch(batch: int, num_chunks: int, blocks: int, m: int, reverse: bool) -> Launch:
    """The launch of `inter_chunk_scan`."""
    lanes = max(32, triton.next_power_of_2(m))
    row, column = (1, m) if reverse else (m, 1)
    columns = triton.next_power_of_2(m)
    programs = batch * triton.cdiv(blocks * m, lanes // m * m)
    return Launch(
        inter_chunk_scan_kernel, programs, num_chunks, blocks, m, row, column, -1 if reverse else 1, columns, lanes,
        max(1, min(8, LOADED // columns)), num_warps=1,
    )  # fmt: skip
