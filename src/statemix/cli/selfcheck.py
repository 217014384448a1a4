"""Are the backends right on this machine? Every one that can run, against the loop in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from statemix.ops import BACKENDS, reference
from statemix.ops.registration import RECURRENCES, choose_backend, scan

BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-12}
"""The largest relative error of states and gradients that passes."""

BATCH, LENGTH, BLOCKS, M = 2, 65, 70, 3

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "bdlru": ((M, M + 1), (M,)),
    "hlru": ((M + 1,), ()),
    "affine": ((M, M), (M,)),
}
"""The dimensions of gates and values after [B, T, N]."""

Tensors = tuple[Tensor, ...]


class Check(NamedTuple):
    """One comparison: the largest error relative to the largest number, and what is allowed."""

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


def unavailable(backend: str, device: torch.device) -> str | None:
    """Why a backend cannot run on a device, or None."""
    try:
        choose_backend(backend, device)
    except ValueError as error:
        return str(error)
    return None


def checks(device: torch.device) -> Iterator[Check]:
    """Compare every backend that can run on the device, for every recurrence, in float32 and float64."""
    for recurrence in RECURRENCES:
        inputs = _inputs(recurrence)
        want = _outputs_and_gradients(recurrence, inputs, None)
        for backend in BACKENDS:
            if unavailable(backend, device) is not None:
                continue
            for dtype, bound in BOUNDS.items():
                here = tuple(x.to(device, dtype) for x in inputs)
                got = _outputs_and_gradients(recurrence, here, backend)
                error = max(_relative(g.cpu(), w) for g, w in zip(got, want, strict=True))
                yield Check(str(device), backend, recurrence, dtype, error, bound)


def _inputs(recurrence: str) -> Tensors:
    """Gates, values, initial state and the gradients of both outputs: numbers that float32 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    gates, values = ((BATCH, LENGTH, BLOCKS, *rest) for rest in SHAPES[recurrence])
    state = (BATCH, BLOCKS, M)
    tensors = [torch.randn(s, generator=generator) for s in (gates, values, state, values, state)]
    if recurrence == "affine":
        tensors[0] /= 2 * M  # nothing normalises it
    return tuple(x.double() for x in tensors)


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


def _relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max())
