"""What the portable kernels share: how they are compiled, which steps a program owns, how rows are read and written.

Strides, steps, rows and blocks are int64 from the start: no offset passes through 32 bits.
"""

# mypy: ignore-errors
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from statemix.ops.triton.rows import gate_gradient, row_shift


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


def launch(
    function: Any, programs: int, arguments: tuple[Any, ...], threads: int, constants: dict[str, Any]
) -> None:
    """Run a kernel whose first argument is a tensor; FAST is filled in where the kernel has it."""
    if programs == 0:
        return
    device = arguments[0].device
    if "FAST" in constants:
        constants = {**constants, "FAST": device.type == "cuda" and torch.version.hip is None}
    with torch.cuda.device_of(arguments[0]):
        warps = max(1, threads // warp_size(device))
        function[(programs,)](*arguments, **constants, num_warps=warps, num_stages=1)


@triton.jit
def span(bounds, work, T, segment, segments):
    """What program `work` owns: (row, sequence, first, start, end, last).

    It walks the steps start..end of a row of the batch; its sequence covers first..last. A row is cut into segments
    of `segment` steps, or into the sequences between `bounds` (then it is one row, and nothing else cuts it).
    """
    if bounds is None:
        row = (work // segments).to(tl.int64)
        sequence = row
        start = (work % segments).to(tl.int64) * segment
        end = tl.minimum(start + segment, T)
        first, last = start * 0, start * 0 + T
    else:
        row = (work * 0).to(tl.int64)
        sequence = work.to(tl.int64)
        start, end = tl.load(bounds + sequence).to(tl.int64), tl.load(bounds + sequence + 1).to(tl.int64)
        first, last = start, end
    return row, sequence, first, start, end, last


@triton.jit
def block_lanes(tile, N, M: tl.constexpr, LANES: tl.constexpr):
    """Lanes as rows of blocks: (block n, component i, the lane of component 0, whether there is such a row).

    LANES is a warp, so that a block's lanes exchange numbers without shared memory; what does not fill a block idles.
    """
    lane = tl.arange(0, LANES)
    used = lane < LANES // M * M
    n = tl.cast(tile, tl.int64) * (LANES // M) + lane // M
    return n, (lane % M).to(tl.int64), tl.where(used, lane // M * M, 0), used & (n < N)


@triton.jit
def load_columns(at, stride, mask, COUNT: tl.constexpr):
    """COUNT numbers a lane, `stride` apart, in their own dtype: what waits in a queue is converted when it is used."""
    columns = ()
    for j in tl.static_range(COUNT):
        columns = columns + (tl.load(at + j * stride, mask=mask, other=0.0),)
    return columns


@triton.jit
def floats(numbers, COUNT: tl.constexpr):
    """The first COUNT numbers of a tuple, as float32."""
    converted = ()
    for k in tl.static_range(COUNT):
        converted = converted + (numbers[k].to(tl.float32),)
    return converted


@triton.jit
def row_slopes(x, p, inverse, u, h, CODE: tl.constexpr, COLUMNS: tl.constexpr):
    """How h changes with each raw gate of its row: times the adjoint of h, the gradients of the gates."""
    shift = row_shift(x, CODE, COLUMNS)
    slopes = ()
    for j in tl.static_range(COLUMNS):
        slopes = slopes + (gate_gradient(x[j], p[j], inverse, shift, 1.0, u[j], h, CODE),)
    return slopes


@triton.jit
def store(at, number, mask):
    """Write a float32 number in the dtype of the memory."""
    tl.store(at, number.to(at.dtype.element_ty), mask=mask)


@triton.jit
def unstack(x, STEPS: tl.constexpr, LANES: tl.constexpr):
    """A [STEPS, LANES] tensor as STEPS tensors [LANES], by halving: its steps lie in registers, so nothing moves."""
    parts = (x,)
    for k in tl.static_range(5):
        if (1 << k) < STEPS:
            halves = ()
            for q in tl.static_range(1 << k):
                pair = tl.reshape(parts[q], [2, (STEPS >> k) // 2, LANES])
                halves = halves + tl.split(tl.permute(pair, (1, 2, 0)))
            parts = halves
    steps = ()
    for s in tl.static_range(STEPS):
        steps = steps + (tl.reshape(parts[s], [LANES]),)
    return steps


@triton.jit
def stack(steps, STEPS: tl.constexpr, LANES: tl.constexpr):
    """The way back."""
    parts = ()
    for s in tl.static_range(STEPS):
        parts = parts + (tl.reshape(steps[s], [1, LANES]),)
    for k in tl.static_range(5):
        if (1 << k) < STEPS:
            joined = ()
            for q in tl.static_range(STEPS >> (k + 1)):
                pair = tl.permute(tl.join(parts[2 * q], parts[2 * q + 1]), (2, 0, 1))
                joined = joined + (tl.reshape(pair, [2 << k, LANES]),)
            parts = joined
    return parts[0]


@triton.jit
def unstack_all(tensors, COUNT: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr):
    """`unstack` for COUNT tensors of a tuple: entry [j][s] is step s of tensor j."""
    unstacked = ()
    for j in tl.static_range(COUNT):
        unstacked = unstacked + (unstack(tensors[j], STEPS, LANES),)
    return unstacked


@triton.jit
def choose(condition, new, old, M: tl.constexpr):
    """tl.where, one by one."""
    chosen = ()
    for k in tl.static_range(M):
        chosen = chosen + (tl.where(condition, new[k], old[k]),)
    return chosen
