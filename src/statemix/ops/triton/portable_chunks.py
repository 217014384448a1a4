"""Long rows cut into segments that are walked side by side: what each segment does to the state, in plain Triton.

A segment maps the state before it to the state after it as h -> P h + o. `products` finds P and o of every segment;
from them follows the state before each (`carry`), with which `portable.forward` walks all segments side by side.
Backward the same with P transposed. For an H-LRU the state is the window, and P a product of companion matrices.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from statemix.ops.triton import portable_chunk_kernels
from statemix.ops.triton.portable import KINDS, count_segments, find
from statemix.ops.triton.portable_parts import encode, launch, warp_size

LARGEST = {"block": 16, "order": 32}
"""The largest m that can be cut into segments."""

STEPS = {"block": {1: 8, 4: 4, 8: 2, 16: 1}, "order": {2: 4, 4: 2, 8: 1}}
"""The launch table of `products`: steps a tile, by the largest m that the entry is for."""


def _constants(
    kind: str, m: int, columns: int, reverse: bool, warp: int
) -> tuple[Any, int, int, dict[str, Any]]:
    """(kernel, blocks a program, programs that share them, the kernel's own constants)."""
    steps = find(STEPS[kind], m)
    constants = {"M": m, "REVERSE": reverse, "LANES": warp, "STEPS": steps, "FAST": False}
    if kind == "block":
        return portable_chunk_kernels.block_products, warp // m, 1, {**constants, "COLUMNS": columns}
    if steps:
        return portable_chunk_kernels.order_products, warp, 1, constants
    constants = {"M": m, "REVERSE": reverse, "LANES": 32, "SIZE": triton.next_power_of_2(m)}
    return portable_chunk_kernels.ring_products, 32, m if reverse else m + 1, constants


def products(
    recurrence: str, code: int, gates: Tensor, inputs: Tensor, segment: int, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """(P [B*K, N, m, m], o [B*K, N, m]) of all segments of `segment` steps, float32; `inputs` are the values.

    With `reverse`, `inputs` is the gradient of the states, and o the adjoint that a segment whose end has none
    carries out of its start. Errors: ValueError for m above `LARGEST`.
    """
    kind, (batch, length, blocks) = KINDS[recurrence], gates.shape[:3]
    columns = gates.shape[-1]
    m = gates.shape[-2] if kind == "block" else columns - 1
    if m > LARGEST[kind]:
        raise ValueError(f"m: got {m}, expected at most {LARGEST[kind]} for a row cut into segments")
    cuts = count_segments(length, segment)
    matrices = gates.new_empty((batch * cuts, blocks, m, m), dtype=torch.float32)
    offsets = gates.new_empty((batch * cuts, blocks, m), dtype=torch.float32)
    warp = warp_size(gates.device)
    kernel, each, shared, constants = _constants(kind, m, columns, reverse, warp)
    tensors = (gates, inputs, matrices, offsets)
    arguments = (*tensors, encode(tuple(x.stride() for x in tensors)), length, blocks, segment, cuts)
    programs = batch * cuts * triton.cdiv(blocks, each) * shared
    launch(kernel, programs, arguments, warp, {"CODE": code, **constants})
    return matrices, offsets
