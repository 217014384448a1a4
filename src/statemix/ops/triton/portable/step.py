"""One token: every row of every block in one kernel, in plain Triton. Lanes read the whole old state they need, so
nothing is exchanged, and neighbouring lanes own what lies side by side in memory."""

# mypy: ignore-errors
from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from statemix.ops.triton.gate_norm import row_weights
from statemix.ops.triton.portable.common import (
    Config,
    decode,
    encode,
    floats,
    is_nvidia,
    kernel,
    launch,
    load_columns,
    state_at,
    store,
)
from statemix.ops.triton.portable.large_block import column, load, tile_weights

MAX_M_IN_REGISTERS = 16
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
def row_step(g, v, initial, states, final, strides, N, CFG: tl.constexpr):
    """Strides: gs (B, N, i, j), vs and ss (B, N, i), ins and fs (B, N, m). ROWS is M, or 1 for an H-LRU."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    gs, vs, ins, ss, fs = decode(strides)
    b, n, i, live = _lanes(N, CFG.ROWS, CFG.N_INNERMOST, CFG.LANES)
    x = floats(load_columns(state_at(g, gs, b, n, i), gs[3], live, COLUMNS), COLUMNS)
    u = load_columns(initial + b * ins[0] + n * ins[1], ins[2], live, M)
    h = load(state_at(v, vs, b, n, i), live)
    p, inverse = row_weights(x, CFG.NORM, COLUMNS, CFG.FAST)
    if COLUMNS > M:
        h *= p[M]
    for j in tl.static_range(M):
        h += p[j] * u[j]
    store(state_at(states, ss, b, n, i), h, live)
    final += b * fs[0] + n * fs[1] + i * fs[2]
    store(final, h, live)
    for k in tl.static_range(1, M):
        if CFG.ROWS < M:  # the window moves by one
            final += fs[2]
            store(final, u[k - 1], live)


@kernel
def tile_step(g, v, initial, states, final, strides, N, CFG: tl.constexpr):
    """The same for a large M: columns along the first axis of a tile, rows along the second."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    gs, vs, ins, ss, fs = decode(strides)
    b, n, i, live = _lanes(N, CFG.ROWS, CFG.N_INNERMOST, CFG.LANES)
    j = tl.arange(0, CFG.SIZE)[:, None].to(tl.int64)
    inside = live[None, :] & (j < M)
    g += b * gs[0] + n * gs[1] + i * gs[2]
    x = load(g[None, :] + j * gs[3], inside)
    u = load((initial + b * ins[0] + n * ins[1])[None, :] + j * ins[2], inside)
    value = load(state_at(v, vs, b, n, i), live)
    gate = load(column(g, gs[3], M), live) if COLUMNS > M else tl.full([CFG.LANES], 1.0, tl.float32)
    p, p_last, inverse, shift = tile_weights(x, gate, inside, CFG.NORM, COLUMNS)
    h = tl.sum(p * u, 0) + p_last * value
    store(state_at(states, ss, b, n, i), h, live)
    final += b * fs[0] + n * fs[1]
    store(final + i * fs[2], h, live)
    if CFG.ROWS < M:  # the window moves by one
        store(final[None, :] + (j + 1) * fs[2], u, inside & (j + 1 < M))


def _row_strides(tensor: Tensor, single: bool) -> tuple[int, ...]:
    """Strides of a [B, 1, N, ...] tensor without time; an H-LRU has a `single` row, which takes no step."""
    batch, _, blocks, *rest = tensor.stride()
    return (batch, blocks, 0, *rest) if single else (batch, blocks, *rest)


@lru_cache(maxsize=1024)
def _config(norm: int, m: int, columns: int, rows: int, n_innermost: bool, device: torch.device) -> Config:
    config = Config(norm, m, columns, ROWS=rows, N_INNERMOST=n_innermost, FAST=is_nvidia(device))
    if m <= MAX_M_IN_REGISTERS:
        return config._replace(LANES=LANES)
    size = triton.next_power_of_2(m)
    return config._replace(LANES=max(1, TILE // size), SIZE=size)


def step(recurrence: str, norm: int, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    """One token of every sequence: fills (states (T = 1), final) from (gates, values, initial), all of any strides."""
    gates, values, initial = inputs
    states, final = outputs
    batch, blocks, m = initial.shape
    single = recurrence == "hlru"
    rows = 1 if single else m
    gs, vs, ss = (_row_strides(x, single) for x in (gates, values, states))
    strides = encode((gs, vs, initial.stride(), ss, final.stride()))
    config = _config(norm, m, gates.shape[-1], rows, single or gs[1] < gs[2], gates.device)
    function = tile_step if config.SIZE else row_step
    programs = batch * triton.cdiv(blocks * rows, config.LANES)
    launch(function, programs, (*inputs, *outputs, strides, blocks), LANES, config)
