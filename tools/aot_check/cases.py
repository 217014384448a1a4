"""The calls that a user can make, as far as they differ for the compiler, each with the launch that it is given."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from statemix.ops.launch import LaunchConfig
from statemix.ops.triton import dispatch
from tools.aot_check.machine import Machine

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


SHAPES = {
    "whole": (2, 512, 64),
    "chunks": (1, 65536, 64),
    "packed": (1, 512, 64),
    "odd": (2, 512, 63),
    "token": (2, 1, 64),
    "fused": (2, 512, 64),
}
"""B, T and N by how a call is run: whole sequences; cut in time; packed; with channels that no wide copy suits; one
token; gates and values side by side. Only N m, the lanes of a step, reaches the compiler, and what they lead to."""


class Case(NamedTuple):
    """One call: for whom, what, and the launch it is given (None: the portable kernels)."""

    target: str
    direction: str
    recurrence: str
    m: int
    dtype: str
    launch: LaunchConfig | None = None
    shape: str = "whole"
    normalization: str = "softmax"

    def __str__(self) -> str:
        words = [self.target, self.direction, self.recurrence, f"m={self.m}", self.dtype]
        words += [self.normalization, self.shape]
        if self.launch is not None:
            workers, warps, block_t, stages, registers = self.launch
            words.append(f"{workers}x{warps}x{block_t}x{stages}@{registers}")
        return " ".join(words)


DIRECTIONS = ("forward", "backward")


def call(case: Case, machine: Machine) -> None:
    """Make a call on a machine of its target."""
    machine.launch = case.launch
    (batch, length, blocks), packed, fused = SHAPES[case.shape], case.shape == "packed", case.shape == "fused"
    dtype, columns = DTYPES[case.dtype], case.m + (case.recurrence != "affine")
    inner = (blocks,) if case.recurrence == "hlru" else (blocks, case.m)
    gates = machine.tensor((columns, batch, length, *inner), dtype).movedim(0, -1)
    values = machine.tensor((batch, length, *inner), dtype)
    if fused:
        width = math.prod(inner)
        both = machine.tensor((batch, length, (columns + 1) * width), dtype)
        gates = both[..., :-width].unflatten(-1, (columns, *inner)).movedim(2, -1)
        values = both[..., -width:].unflatten(-1, inner)
    sequences = 2 * batch if packed else batch
    state = machine.tensor((sequences, blocks, case.m), torch.float32)
    bounds = machine.tensor((sequences + 1,), torch.int64) if packed else None
    names = (case.recurrence, case.normalization)
    if case.direction == "forward":
        dispatch.forward(*names, (gates, values, state), (values, state), bounds)
        return
    states = values.contiguous()
    d_gates = gates if fused else torch.empty_like(gates)
    inputs = (gates, values, states, state, states, state)
    dispatch.backward(*names, inputs, (d_gates, values, state), bounds, summed=fused)
