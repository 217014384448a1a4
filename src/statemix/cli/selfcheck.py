"""Are the backends right on this machine? Every one that can run, against the loop in float64."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from statemix.ops import BACKENDS, reference
from statemix.ops.autograd import scan
from statemix.ops.dispatch import RECURRENCES
from statemix.ops.layout import state_dtype

BOUNDS = {
    "cpu": {torch.float32: 5e-6, torch.float64: 1e-12},
    "cuda": {torch.float32: 5e-6, torch.float64: 1e-12, torch.bfloat16: 8e-3},
}
"""What is checked on a type of device, and the largest relative error (root mean square) that passes."""

BATCH, LENGTH, BLOCKS, M = 2, 65, 70, 3

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "bdlru": ((M, M + 1), (M,)),
    "hlru": ((M + 1,), ()),
    "affine": ((M, M), (M,)),
}
"""The dimensions of gates and values after [B, T, N]."""

Tensors = tuple[Tensor, ...]


class Check(NamedTuple):
    """One comparison: the largest error of states and gradients, each in root mean square, and what is allowed."""

    device: str
    backend: str
    recurrence: str
    dtype: torch.dtype
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound (NaN is not)."""
        return self.error <= self.bound


def checks(device: torch.device) -> Iterator[Check]:
    """Compare every backend that can run on the device, for every recurrence, in every dtype of `BOUNDS` it takes."""
    for recurrence, (dtype, bound) in product(RECURRENCES, BOUNDS[device.type].items()):
        inputs = _inputs(recurrence, dtype)
        want = _outputs_and_gradients(recurrence, inputs, None)
        for backend, module in BACKENDS.items():
            if module.unavailable(device, dtype) is not None:
                continue
            here = tuple(x.to(device, kind) for x, kind in zip(inputs, _dtypes(dtype), strict=True))
            got = _outputs_and_gradients(recurrence, here, backend)
            errors = torch.stack([_relative(g.cpu(), w) for g, w in zip(got, want, strict=True)])
            error = float(errors.max())  # NaN if there is one
            yield Check(str(device), backend, recurrence, dtype, error, bound)


def _dtypes(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """Of gates, values, initial state and the gradients of both outputs; states are at least float32."""
    state = state_dtype(dtype)
    return dtype, dtype, state, dtype, state


def _inputs(recurrence: str, dtype: torch.dtype) -> Tensors:
    """Gates, values, initial state and the gradients of both outputs, float64: numbers that the dtype holds exactly."""
    generator = torch.Generator().manual_seed(0)
    gates, values = ((BATCH, LENGTH, BLOCKS, *rest) for rest in SHAPES[recurrence])
    state = (BATCH, BLOCKS, M)
    tensors = [torch.randn(s, generator=generator) for s in (gates, values, state, values, state)]
    if recurrence == "affine":
        tensors[0] /= 2 * M  # nothing normalises it
    return tuple(x.to(dtype).double() for x in tensors)


def _outputs_and_gradients(recurrence: str, inputs: Tensors, backend: str | None) -> Tensors:
    """States, final state and the gradients of gates, values and initial state; backend None is the plain loop."""
    gates, values, state = (x.clone().requires_grad_() for x in inputs[:3])
    normalization = "none" if recurrence == "affine" else "softmax"
    if backend is None:
        outputs = reference.scan(recurrence, gates, values, state, None, normalization)
    else:
        outputs = scan(recurrence, gates, values, state, None, normalization, backend)
    gradients = torch.autograd.grad(outputs, (gates, values, state), inputs[3:])
    return tuple(x.detach() for x in (*outputs, *gradients))


def _relative(got: Tensor, want: Tensor) -> Tensor:
    return (got.double() - want).norm() / want.norm()
