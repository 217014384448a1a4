"""One token: every row of every block in one kernel, in plain Triton. Lanes read the whole old state they need, so
nothing is exchanged, and neighbouring lanes own what lies side by side in memory."""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from statemix.ops.triton.portable_parts import (
    decode,
    encode,
    floats,
    kernel,
    launch,
    load_columns,
    store,
)
from statemix.ops.triton.portable_wide import column, load, tile_weights
from statemix.ops.triton.rows import row_weights

IN_REGISTERS = 16
"""The largest m whose rows lie in the registers of one lane; larger ones lie along a tile's first axis."""
LANES, TILE = 128, 2048
"""Rows a program, and numbers in the tile of a program when m is larger."""


@triton.jit
def _lanes(N, ROWS: tl.constexpr, N_INNERMOST: tl.constexpr, LANES: tl.constexpr):
    """(batch row, block n, row i of the block, whether there is one) of every lane of a program."""
    tiles = tl.cdiv(N * ROWS, LANES)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    lane = tl.program_id(0) % tiles * LANES + tl.arange(0, LANES)
    if N_INNERMOST:
        n, i = lane % N, lane // N
    else:
        n, i = lane // ROWS, lane % ROWS
    return b, n.to(tl.int64), i.to(tl.int64), lane < N * ROWS


@kernel
def row_step(
    g, v, initial, states, final, strides, N,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, N_INNERMOST: tl.constexpr,
    LANES: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Strides: gs (B, N, i, j), vs and ss (B, N, i), ins and fs (B, N, m). ROWS is M, or 1 for an H-LRU."""
    gs, vs, ins, ss, fs = decode(strides)
    b, n, i, live = _lanes(N, ROWS, N_INNERMOST, LANES)
    x = floats(load_columns(g + b * gs[0] + n * gs[1] + i * gs[2], gs[3], live, COLUMNS), COLUMNS)
    u = load_columns(initial + b * ins[0] + n * ins[1], ins[2], live, M)
    h = load(v + b * vs[0] + n * vs[1] + i * vs[2], live)
    p, inverse = row_weights(x, CODE, COLUMNS, FAST)
    if COLUMNS > M:
        h *= p[M]
    for j in tl.static_range(M):
        h += p[j] * u[j]
    store(states + b * ss[0] + n * ss[1] + i * ss[2], h, live)
    final += b * fs[0] + n * fs[1] + i * fs[2]
    store(final, h, live)
    for k in tl.static_range(1, M):
        if ROWS < M:  # the window moves by one
            final += fs[2]
            store(final, u[k - 1], live)


@kernel
def tile_step(
    g, v, initial, states, final, strides, N,
    CODE: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, N_INNERMOST: tl.constexpr,
    LANES: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """The same for a large M: columns along the first axis of a tile, rows along the second."""
    gs, vs, ins, ss, fs = decode(strides)
    b, n, i, live = _lanes(N, ROWS, N_INNERMOST, LANES)
    j = tl.arange(0, SIZE)[:, None].to(tl.int64)
    inside = live[None, :] & (j < M)
    g += b * gs[0] + n * gs[1] + i * gs[2]
    x = load(g[None, :] + j * gs[3], inside)
    u = load((initial + b * ins[0] + n * ins[1])[None, :] + j * ins[2], inside)
    value = load(v + b * vs[0] + n * vs[1] + i * vs[2], live)
    gate = load(column(g, gs[3], M), live) if COLUMNS > M else tl.full([LANES], 1.0, tl.float32)
    p, p_last, inverse, shift = tile_weights(x, gate, inside, CODE, COLUMNS)
    h = tl.sum(p * u, 0) + p_last * value
    store(states + b * ss[0] + n * ss[1] + i * ss[2], h, live)
    final += b * fs[0] + n * fs[1]
    store(final + i * fs[2], h, live)
    if ROWS < M:  # the window moves by one
        store(final[None, :] + (j + 1) * fs[2], u, inside & (j + 1 < M))


def _row_strides(tensor: Tensor, single: bool) -> tuple[int, ...]:
    """Strides of a [B, 1, N, ...] tensor without time; an H-LRU has a `single` row, which takes no step."""
    batch, _, blocks, *rest = tensor.stride()
    return (batch, blocks, 0, *rest) if single else (batch, blocks, *rest)


def step(
    recurrence: str, code: int, gates: Tensor, values: Tensor, initial: Tensor, states: Tensor, final: Tensor
) -> None:
    """One token of every sequence: fills `states` (T = 1) and `final`, of any strides, from tensors of any strides."""
    batch, blocks, m = initial.shape
    single = recurrence == "hlru"
    rows = 1 if single else m
    gs, vs, ss = (_row_strides(x, single) for x in (gates, values, states))
    strides = encode((gs, vs, initial.stride(), ss, final.stride()))
    arguments = (gates, values, initial, states, final, strides, blocks)
    constants = {"CODE": code, "M": m, "COLUMNS": gates.shape[-1], "ROWS": rows}
    if m <= IN_REGISTERS:
        function, lanes, rest = row_step, LANES, {"FAST": False}
    else:
        size = triton.next_power_of_2(m)
        function, lanes, rest = tile_step, max(1, TILE // size), {"SIZE": size}
    programs = batch * triton.cdiv(blocks * rows, lanes)
    constants.update(rest, LANES=lanes, N_INNERMOST=single or gs[1] < gs[2])
    launch(function, programs, arguments, LANES, constants)
