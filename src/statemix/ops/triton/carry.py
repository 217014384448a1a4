"""The walk over segments: the states at their starts, from what each segment does to the state it begins with."""

# mypy: ignore-errors
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 64
"""Numbers of matrices that a lane has on their way from memory at once."""


@triton.jit
def _walk(
    matrices, offsets, initial, starts, last, segments, N, m, row, column, turn,
    COLUMNS: tl.constexpr, LANES: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program: LANES numbers of whole blocks of one row. `row` and `column` are the strides of a block's matrix;
    `turn` is 1 or (from the last segment to the first) -1."""
    per_program = LANES // m * m
    groups = tl.cdiv(N * m, per_program)
    b = (tl.program_id(0) // groups).to(tl.int64)
    lane = tl.arange(0, LANES)
    channel = tl.program_id(0) % groups * per_program + lane
    ok = (lane < per_program) & (channel < N * m)
    first, own = lane // m * m, lane % m
    h = tl.load(initial + b * N * m + channel, mask=ok, other=0.0)
    place = (b * segments + (segments - 1 if turn < 0 else 0)) * N * m
    for k0 in range(0, segments, PIECE):
        rows, drives, ahead = (), (), place
        for k in tl.static_range(PIECE):  # all loads first: a store would hold them back
            there = ok & (k0 + k < segments)
            entries = ()
            at = matrices + ahead * m + channel // m * (m * m) + own * row
            for j in tl.static_range(COLUMNS):
                entries = entries + (tl.load(at + j * column, mask=there & (j < m), other=0.0),)
            rows = rows + (entries,)
            drives = drives + (tl.load(offsets + ahead + channel, mask=there, other=0.0),)
            ahead += turn * N * m
        for k in tl.static_range(PIECE):
            there = ok & (k0 + k < segments)
            tl.store(starts + place + channel, h, mask=there)
            total = drives[k]
            for j in tl.static_range(COLUMNS):
                product = rows[k][j] * tl.gather(h, tl.minimum(first + j, LANES - 1), 0)
                total = tl.where(j < m, total + product, total)  # 0 * NaN of another block is not a term
            h = tl.where(there, total, h)
            place += turn * N * m
    tl.store(last + b * N * m + channel, h, mask=ok)


def carry(matrices: Tensor, offsets: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """h_{k+1} = P_k h_k + o_k over the segments of every row; reverse: c_k = P_k^T c_{k+1} + o_k.

    matrices [B K, N, m, m] and offsets [B K, N, m], contiguous; initial [B, N, m], contiguous.
    Returns what each segment begins with [B K, N, m], and what comes out of the last [B, N, m] (reverse: ends with,
    and comes out of the first). All float32.
    """
    batch, blocks, m = initial.shape
    starts, last = torch.empty_like(offsets), torch.empty_like(initial)
    lanes = max(32, triton.next_power_of_2(m))
    row, column = (1, m) if reverse else (m, 1)
    columns = triton.next_power_of_2(m)
    programs = batch * triton.cdiv(blocks * m, lanes // m * m)
    _walk[(programs,)](
        matrices, offsets, initial, starts, last, offsets.shape[0] // batch, blocks, m, row, column,
        -1 if reverse else 1, COLUMNS=columns, LANES=lanes, PIECE=max(1, min(8, NUMBERS // columns)), num_warps=1,
    )  # fmt: skip
    return starts, last
