"""What a Hopper kernel is compiled for and launched with, from the shapes and strides of a call. Needs no Triton."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from statemix.ops.triton.launch_table import LaunchConfig

MAX_M = 16
"""The largest block size or order that these kernels take."""

PARTLY_USED_WARPS = {3: 24, 5: 20, 6: 24, 7: 28, 9: 18, 10: 20, 11: 22, 12: 24, 13: 26, 14: 28, 15: 30}
"""Lanes in use of a warp for block sizes that do not divide 32: whole blocks, in bfloat16 a multiple of 4 bytes."""

DIRECT = 0
"""The copy width that means: no copies, every number is loaded by the lane that needs it."""

SINGLE_PASS, LOCAL_PASS, FIXUP_PASS = range(3)
"""What a launch walks: whole sequences, or chunks from known states; chunks that forget their start, from a zero state;
chunks from their true states, as far as these are remembered."""

SUMMARY_LAUNCHES = {
    1: (1, 16, 3, 32),
    2: (1, 8, 3, 16),
    4: (2, 4, 4, 8),
    8: (1, 2, 4, 16),
    16: (1, 1, 4, 8),
}
"""Launches of the chunk summaries, for m up to the number given: num_warps, block_t, num_stages, and block_t of the
walk of the bound."""

Sizes = tuple[int, ...]
"""A shape, or strides."""


class Config(NamedTuple):
    """All that a Hopper kernel knows at compilation.

    H channels (N m, or N) of a step, M the block size or order, COLUMNS gates of a row, CARRIED numbers that a lane
    carries from step to step, NORM the normalisation's code, LANES used of a warp, VECTOR numbers of a copy. STATE_ROWS
    are the rows of states that a tile of the backward pass reads, rounded up to a power of two; D_GATES_STRIDE and
    D_VALUES_STRIDE the numbers between two steps of these gradients.
    """

    H: int
    M: int
    COLUMNS: int
    CARRIED: int
    HLRU: bool
    NORM: int
    LANES: int
    VECTOR: int
    NUM_WORKERS: int
    NUM_WARPS: int
    BLOCK_T: int
    NUM_STAGES: int
    WORKER_WARPS: Sizes = ()
    WORKER_REGISTERS: Sizes = ()
    PACKED: bool = False
    PASS: int = SINGLE_PASS
    STATE_ROWS: int = 0
    D_GATES_STRIDE: int = 0
    D_VALUES_STRIDE: int = 0
    SUMMED: bool = False
    REVERSE: bool = False
    BOUND_BLOCK_T: int = 0


class Call(NamedTuple):
    """What the layout of a call's tensors says: the kernels' name and m, copy width, and where time is cut."""

    recurrence: str
    norm: int
    width: int
    num_sequences: int | None
    chunk: int | None
    gates: Sizes
    gate_strides: Sizes
    values: Sizes
    value_strides: Sizes

    @property
    def m(self) -> int:
        """Block size or order."""
        return self.gates[-1] - (self.recurrence != "affine")


class Plan(NamedTuple):
    """The launch of a call: programs, the integers of `common.INTEGERS`, the configuration, Triton's own options."""

    programs: int
    integers: Sizes
    config: Config
    options: dict[str, Any]


def lanes_per_warp(recurrence: str, m: int, width: int) -> int:
    """How many lanes of a warp own a row or a channel; whole blocks."""
    if recurrence == "hlru":
        return 32
    return 32 // m * m if width == DIRECT else PARTLY_USED_WARPS.get(m, 32)


def _row_strides(gates: Sizes, gate_strides: Sizes, values: Sizes, value_strides: Sizes) -> Sizes:
    """Of rows, steps and planes of the gates, of rows and steps of the values; of one element none matters."""
    gb, gt = (0 if gates[d] == 1 else gate_strides[d] for d in (0, 1))
    vb, vt = (0 if values[d] == 1 else value_strides[d] for d in (0, 1))
    return gb, gt, gate_strides[-1], vb, vt


@lru_cache(maxsize=4096)
def copy_width(recurrence: str, itemsize: int, *shapes: Sizes) -> int:
    """How many neighbouring numbers one copy may take: all strides and the lanes are multiples of it. 0: not even 4
    bytes. shapes: shape and strides of the gates and of the values."""
    gates, _, values, _ = shapes
    lanes = lanes_per_warp(recurrence, gates[-1] - (recurrence != "affine"), 1)
    sizes = (lanes, math.prod(values[2:]), *_row_strides(*shapes))
    width = 16 // itemsize
    while any(size % width for size in sizes):
        width //= 2
    return width if width * itemsize >= 4 else 0


def _common(call: Call, num_warps: int) -> tuple[int, Sizes, dict[str, Any]]:
    """Programs, integers, and the fields of a configuration that follow from the shapes."""
    (batch, length), m = call.values[:2], call.m
    lanes, channels = lanes_per_warp(call.recurrence, m, call.width), math.prod(call.values[2:])
    groups = -(-channels // (num_warps * lanes))
    chunk = call.chunk or length
    num_chunks = -(-length // chunk)
    strides = _row_strides(call.gates, call.gate_strides, call.values, call.value_strides)
    hlru = call.recurrence == "hlru"
    fields = {
        "H": channels, "M": m, "COLUMNS": call.gates[-1], "CARRIED": m if hlru else 1, "HLRU": hlru,
        "NORM": call.norm, "LANES": lanes, "VECTOR": call.width, "NUM_WARPS": num_warps,
    }  # fmt: skip
    programs = groups * (batch * num_chunks if call.num_sequences is None else call.num_sequences)
    integers = (length, chunk, num_chunks, groups, *(s // max(1, call.width) for s in strides))
    return programs, integers, fields


@lru_cache(maxsize=4096)
def plan_scan(
    call: Call, launch: LaunchConfig, time_pass: int, *d_strides: int, summed: bool = False
) -> Plan:
    """The launch of a forward pass or, given the steps' strides of both gradients, of a backward pass."""
    programs, integers, fields = _common(call, launch.num_warps)
    rows = launch.block_t + fields["CARRIED"] - 1
    if d_strides:
        fields.update(zip(("D_GATES_STRIDE", "D_VALUES_STRIDE"), d_strides, strict=True))
        fields.update(STATE_ROWS=1 << (rows - 1).bit_length(), SUMMED=summed)
    config = Config(
        **fields, NUM_WORKERS=launch.num_workers, BLOCK_T=launch.block_t, NUM_STAGES=launch.num_stages,
        WORKER_WARPS=(launch.num_warps,) * launch.num_workers,
        WORKER_REGISTERS=(launch.worker_registers,) * launch.num_workers,
        PACKED=call.num_sequences is not None, PASS=time_pass,
    )  # fmt: skip
    options = {"num_warps": 4, "maxnreg": launch.num_registers, "enable_fp_fusion": False}
    return Plan(programs, integers, config, options)


@lru_cache(maxsize=4096)
def plan_summary(call: Call, reverse: bool) -> Plan:
    """The launch of a chunk summary."""
    launch = next(launch for limit, launch in SUMMARY_LAUNCHES.items() if call.m <= limit)
    num_warps, block_t, num_stages, bound_block_t = launch
    programs, integers, fields = _common(call, num_warps)
    config = Config(
        **fields, NUM_WORKERS=1, BLOCK_T=block_t, NUM_STAGES=num_stages, REVERSE=reverse,
        BOUND_BLOCK_T=bound_block_t,
    )  # fmt: skip
    return Plan(programs, integers, config, {"num_warps": num_warps, "enable_fp_fusion": False})
