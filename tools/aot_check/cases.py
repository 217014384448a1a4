"""The calls that a user can make, as far as they differ for the compiler, each with the launch that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from statemix.ops.triton import dispatch
from statemix.ops.triton.launch_table import LaunchConfig
from tools.aot_check.machine import Machine

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Shape(NamedTuple):
    """Sizes of a call; of them only N m, the lanes of a step, reaches the compiler, and what they lead to."""

    batch: int
    length: int
    blocks: int
    packed: bool = False
    fused: bool = False


SHAPES = {
    "whole": Shape(2, 512, 64),
    "chunks": Shape(1, 65536, 64),
    "packed": Shape(1, 512, 64, packed=True),
    "odd": Shape(2, 512, 63),
    "token": Shape(2, 1, 64),
    "fused": Shape(2, 512, 64, fused=True),
}
"""By how a call is run: whole sequences; cut in time; packed; with channels that no wide copy suits; one token; gates
and values side by side."""


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

    @property
    def call(self) -> str:
        """Everything but the target, as text."""
        words = [self.direction, self.recurrence, f"m={self.m}", self.dtype, self.normalization, self.shape]
        if self.launch is not None:
            workers, warps, block_t, stages, registers = self.launch
            words.append(f"{workers}x{warps}x{block_t}x{stages}@{registers}")
        return " ".join(words)

    def __str__(self) -> str:
        return f"{self.target} {self.call}"


class Tensors(NamedTuple):
    """What a call takes, in the fast format (or side by side)."""

    gates: Tensor
    values: Tensor
    state: Tensor
    bounds: Tensor | None


def _tensors(case: Case, machine: Machine) -> Tensors:
    batch, length, blocks, packed, fused = SHAPES[case.shape]
    shape = (batch, length, blocks, *(() if case.recurrence == "hlru" else (case.m,)))
    columns = case.m + (case.recurrence != "affine")
    gates = machine.tensor((columns, *shape), DTYPES[case.dtype]).movedim(0, -1)
    values = machine.tensor(shape, DTYPES[case.dtype])
    if fused:
        width = math.prod(shape[2:])
        both = machine.tensor((batch, length, (columns + 1) * width), DTYPES[case.dtype])
        gates = both[..., :-width].unflatten(-1, (columns, *shape[2:])).movedim(2, -1)
        values = both[..., -width:].unflatten(-1, shape[2:])
    sequences = 2 * batch if packed else batch
    return Tensors(
        gates,
        values,
        machine.tensor((sequences, blocks, case.m), torch.float32),
        machine.tensor((sequences + 1,), torch.int64) if packed else None,
    )


def _forward(case: Case, x: Tensors) -> None:
    names = (case.recurrence, case.normalization)
    dispatch.forward(*names, (x.gates, x.values, x.state), (x.values, x.state), x.bounds)


def _backward(case: Case, x: Tensors) -> None:
    fused, states = SHAPES[case.shape].fused, x.values.contiguous()
    inputs = (x.gates, x.values, states, x.state, states, x.state)
    outputs = (x.gates if fused else torch.empty_like(x.gates), x.values, x.state)
    dispatch.backward(case.recurrence, case.normalization, inputs, outputs, x.bounds, summed=fused)


DIRECTIONS: dict[str, Callable[[Case, Tensors], None]] = {"forward": _forward, "backward": _backward}


def call(case: Case, machine: Machine) -> None:
    """Make a call on a machine of its target."""
    machine.launch = case.launch
    DIRECTIONS[case.direction](case, _tensors(case, machine))
