"""What the portable kernels share: how they are compiled, which steps a program owns, how rows are read and written.

Letters: of each tensor `x` the strides `xs`; g gates, v values; n block, i component (row) of a block, M block size or
order; a row of gates has COLUMNS. An H-LRU's channels are blocks of one row. CFG is a `Config`.

Strides, steps, rows and blocks are int64 from the start: no offset passes through 32 bits.
"""

# mypy: ignore-errors
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from statemix.ops.triton.gate_norm import gate_gradient, row_shift, soft_weights
from statemix.ops.triton.launcher import Launch


class Config(NamedTuple):
    """All that a portable kernel knows at compilation.

    NORM the normalisation's code, M the block size or order, COLUMNS gates of a row; BLOCK_T steps of a tile, LANES of
    a program, SIZE the power of two from M on; REVERSE which chunk summary; FAST whether NVIDIA's instructions may be
    used. Of one token: whether neighbouring lanes own neighbouring blocks.
    """

    NORM: int
    M: int
    COLUMNS: int
    HLRU: bool = False
    BLOCK_T: int = 0
    LANES: int = 0
    SIZE: int = 0
    REVERSE: bool = False
    FAST: bool = False
    N_INNERMOST: bool = False


def kernel(function: Callable[..., None]) -> Any:
    """A kernel that is compiled once for all sizes, strides and alignments: none of them would make it faster."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if "constexpr" not in str(p.annotation)]
    return triton.jit(function, do_not_specialize=names)


def encode(strides: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Strides as the kernels take them: odd numbers from 3 on.

    Triton would compile a kernel anew for numbers in a tuple that are 1 or multiples of 16.
    """
    return tuple(tuple(2 * stride + 3 for stride in each) for each in strides)


@triton.jit
def decode(strides):
    """The strides of every tensor, as int64."""
    decoded = ()
    for k in tl.static_range(len(strides)):
        one = ()
        for d in tl.static_range(len(strides[k])):
            one = one + (((strides[k][d] - 3) >> 1).to(tl.int64),)
        decoded = decoded + (one,)
    return decoded


@functools.lru_cache
def warp_size(device: torch.device) -> int:
    """Lanes of a warp; the interpreter works on CPU tensors."""
    return 32 if device.type == "cpu" else torch.cuda.get_device_properties(device).warp_size


@functools.lru_cache
def is_nvidia(device: torch.device) -> bool:
    """Whether NVIDIA's instructions may be used."""
    return device.type == "cuda" and torch.version.hip is None


def launch_of(
    function: Any,
    programs: int,
    arguments: tuple[Any, ...],
    threads: int,
    device: torch.device,
    config: Config,
) -> Launch:
    """The launch of a kernel on a device, with the arguments that follow its tensors."""
    warps = max(1, threads // warp_size(device))
    return Launch(function, programs, *arguments, config, num_warps=warps, num_stages=1)


@triton.jit
def span(bounds, work, T, chunk, num_chunks):
    """What program `work` owns: (row, sequence, first, start, end, last).

    It walks the steps start..end of a row of the batch; its sequence covers first..last. A row is cut into chunks of
    `chunk` steps, or into the sequences between `bounds` (then it is one row, and nothing else cuts it).
    """
    if bounds is None:
        row = (work // num_chunks).to(tl.int64)
        sequence = row
        start = (work % num_chunks).to(tl.int64) * chunk
        end = tl.minimum(start + chunk, T)
        first, last = start * 0, start * 0 + T
    else:
        row = (work * 0).to(tl.int64)
        sequence = work.to(tl.int64)
        start, end = tl.load(bounds + sequence).to(tl.int64), tl.load(bounds + sequence + 1).to(tl.int64)
        first, last = start, end
    return row, sequence, first, start, end, last


@triton.jit
def own_lanes(N, CFG: tl.constexpr):
    """(work, n, i, the lane of component 0, whether there is such a row): lanes are rows of blocks, or channels.

    LANES is a warp, so that a block's lanes exchange numbers without shared memory; what does not fill a block idles.
    """
    ROWS: tl.constexpr = 1 if CFG.HLRU else CFG.M
    BLOCKS: tl.constexpr = CFG.LANES // ROWS
    tiles = tl.cdiv(N, BLOCKS)
    work, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    lane = tl.arange(0, CFG.LANES)
    used = lane < BLOCKS * ROWS
    n = tl.cast(tile, tl.int64) * BLOCKS + lane // ROWS
    return work, n, (lane % ROWS).to(tl.int64), tl.where(used, lane // ROWS * ROWS, 0), used & (n < N)


@triton.jit
def rows_at(tensors, strides, row, t, n, i):
    """Of tensors, where the numbers of a row of the batch, a step, blocks and components lie.

    Four strides of each: Triton finds a function's code by its arguments laid flat, so that tuples of unlike lengths
    could meet the code of another call.
    """
    places = ()
    for k in tl.static_range(len(tensors)):
        xs = strides[k]
        places = places + (tensors[k] + (row * xs[0] + t * xs[1] + n * xs[2] + i * xs[3]),)
    return places


@triton.jit
def state_at(x, xs, s, n, i):
    """Where the numbers of a carried state [S, N, M] lie."""
    return x + s * xs[0] + n * xs[1] + i * xs[2]


@triton.jit
def load_columns(at, stride, mask, COUNT: tl.constexpr):
    """COUNT numbers a lane, `stride` apart, in their own dtype: what waits is converted when it is used."""
    columns = ()
    for j in tl.static_range(COUNT):
        columns = columns + (tl.load(at + j * stride, mask=mask, other=0.0),)
    return columns


@triton.jit
def load_rows(g, gs, v, vs, s, mask, COLUMNS: tl.constexpr):
    """Rows of gates and values of the steps s [BLOCK_T, 1] from g and v [LANES] on, raw."""
    loaded = load_columns(g[None, :] + s * gs[1], gs[-1], mask, COLUMNS)
    return loaded + (tl.load(v[None, :] + s * vs[1], mask=mask, other=0.0),)


@triton.jit
def floats(numbers, COUNT: tl.constexpr):
    """The first COUNT numbers of a tuple, as float32."""
    converted = ()
    for k in tl.static_range(COUNT):
        converted = converted + (numbers[k].to(tl.float32),)
    return converted


@triton.jit
def row_slopes(x, u, CFG: tl.constexpr):
    """How h changes with each raw gate of its row: times the adjoint of h, the gradients of the gates. Of a row without
    input gate the last number of u comes in as it is. Also the soft weights."""
    M: tl.constexpr = CFG.M
    COLUMNS: tl.constexpr = CFG.COLUMNS
    p, inverse = soft_weights(x[:COLUMNS], CFG.NORM, COLUMNS, CFG.FAST)
    h = u[M] * p[M] if COLUMNS > M else u[M]
    for j in tl.static_range(M):
        h += p[j] * u[j]
    shift = row_shift(x, CFG.NORM, COLUMNS)
    slopes = ()
    for j in tl.static_range(COLUMNS):
        slopes = slopes + (gate_gradient(x[j], p[j], inverse, shift, 1.0, u[j], h, CFG.NORM),)
    return slopes, p


@triton.jit
def store(at, number, mask):
    """Write a float32 number in the dtype of the memory."""
    tl.store(at, number.to(at.dtype.element_ty), mask=mask)


@triton.jit
def unstack(x, BLOCK_T: tl.constexpr, LANES: tl.constexpr):
    """A [BLOCK_T, LANES] tensor as BLOCK_T tensors [LANES], by halving: all in registers, so nothing moves."""
    parts = (x,)
    for k in tl.static_range(5):
        if (1 << k) < BLOCK_T:
            halves = ()
            for q in tl.static_range(1 << k):
                pair = tl.reshape(parts[q], [2, (BLOCK_T >> k) // 2, LANES])
                halves = halves + tl.split(tl.permute(pair, (1, 2, 0)))
            parts = halves
    steps = ()
    for s in tl.static_range(BLOCK_T):
        steps = steps + (tl.reshape(parts[s], [LANES]),)
    return steps


@triton.jit
def stack(steps, BLOCK_T: tl.constexpr, LANES: tl.constexpr):
    """The way back."""
    parts = ()
    for s in tl.static_range(BLOCK_T):
        parts = parts + (tl.reshape(steps[s], [1, LANES]),)
    for k in tl.static_range(5):
        if (1 << k) < BLOCK_T:
            joined = ()
            for q in tl.static_range(BLOCK_T >> (k + 1)):
                pair = tl.permute(tl.join(parts[2 * q], parts[2 * q + 1]), (2, 0, 1))
                joined = joined + (tl.reshape(pair, [2 << k, LANES]),)
            parts = joined
    return parts[0]


@triton.jit
def unstack_all(tensors, COUNT: tl.constexpr, BLOCK_T: tl.constexpr, LANES: tl.constexpr):
    """`unstack` for COUNT tensors of a tuple: entry [j][s] is step s of tensor j."""
    unstacked = ()
    for j in tl.static_range(COUNT):
        unstacked = unstacked + (unstack(tensors[j], BLOCK_T, LANES),)
    return unstacked
