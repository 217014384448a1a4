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
from statemix.ops.triton.launcher import Launch
from statemix.ops.triton.portable.common import (
    Config,
    decode,
    encode,
    floats,
    is_nvidia,
    kernel,
    launch_of,
    load_columns,
    state_at,
    store,
)
from statemix.ops.triton.portable.large_block import load

MAX_STEP_M = 16
"""The largest m whose rows lie in the registers of one lane; of larger ones a token is a scan of one step."""

LANES = 128
"""Rows of a program."""


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
    """Strides: gs (B, N, i, j), vs and ss (B, N, i), ins and fs (B, N, m). An H-LRU has one row a block."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    gs, vs, ins, ss, fs = decode(strides)
    b, n, i, live = _lanes(N, 1 if CFG.HLRU else M, CFG.N_INNERMOST, CFG.LANES)
    x = floats(load_columns(state_at(g, gs, b, n, i), gs[3], live, COLUMNS), COLUMNS)
    u = load_columns(initial + b * ins[0] + n * ins[1], ins[2], live, M)
    h = load(state_at(v, vs, b, n, i), live)
    p = row_weights(x, CFG.NORM, COLUMNS, CFG.FAST)
    if COLUMNS > M:
        h *= p[M]
    for j in tl.static_range(M):
        h += p[j] * u[j]
    store(state_at(states, ss, b, n, i), h, live)
    final += b * fs[0] + n * fs[1] + i * fs[2]
    store(final, h, live)
    for k in tl.static_range(1, M):
        if CFG.HLRU:  # the window moves by one
            final += fs[2]
            store(final, u[k - 1], live)


def _row_strides(strides: tuple[int, ...], hlru: bool) -> tuple[int, ...]:
    """Strides of a [B, 1, N, ...] tensor without time; an H-LRU has one row, which takes no step."""
    batch, _, blocks, *rest = strides
    return (batch, blocks, 0, *rest) if hlru else (batch, blocks, *rest)


@lru_cache(maxsize=4096)
def _launch(
    recurrence: str, norm: int, columns: int, device: torch.device, sizes: tuple[int, ...], dtype: torch.dtype,
    *strides: tuple[int, ...],
) -> Launch:  # fmt: skip
    """The launch for a state of some sizes [B, N, m], gates and values of a dtype, and the strides of all tensors."""
    (batch, blocks, m), hlru = sizes, recurrence == "hlru"
    gates, values, initial, states, final = strides
    gs, vs, ss = (_row_strides(each, hlru) for each in (gates, values, states))
    n_innermost = hlru or gs[1] < gs[2]
    config = Config(norm, m, columns, hlru, LANES=LANES, N_INNERMOST=n_innermost, FAST=is_nvidia(device))
    programs = batch * triton.cdiv(blocks * (1 if hlru else m), LANES)
    arguments = (encode((gs, vs, initial, ss, final)), blocks)
    return launch_of(row_step, programs, arguments, LANES, device, config)


def step(recurrence: str, norm: int, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    """One token of every sequence: fills (states (T = 1), final) from (gates, values, initial), all of any strides.

    Gates, values and states are of one dtype; the state is float32.
    """
    gates, values, initial = inputs
    states, final = outputs
    launch = _launch(
        recurrence, norm, gates.shape[-1], gates.device, initial.shape, gates.dtype, gates.stride(), values.stride(),
        initial.stride(), states.stride(), final.stride(),
    )  # fmt: skip
    launch(gates, values, initial, states, final)
