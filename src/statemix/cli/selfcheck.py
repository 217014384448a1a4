"""Are the backends right on this machine? Every one that can run, against the loop in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from statemix.ops import BACKENDS, reference
from statemix.ops.autograd import scan
from statemix.ops.dispatch import RECURRENCES, unavailable
from statemix.ops.layout import state_dtype
from statemix.ops.normalization import normalization_key

BOUNDS = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 5e-6, torch.float64: 1e-12}
"""The largest relative error (root mean square) that passes."""

CHECKED = {
    "cpu": (torch.float32, torch.float64),
    "cuda": (torch.float32, torch.float64, torch.bfloat16),
}
"""What is checked on a type of device."""

M, SIZES = 3, (2, 65, 70)
"""Of what is checked: block size or order, and (B, T, N)."""

Tensors = tuple[Tensor, ...]


class Check(NamedTuple):
    """One comparison: the largest error of states and gradients, each in root mean square, and what is allowed."""

    device: str
    backend: str
    recurrence: str
    dtype: torch.dtype
    error: float
    bound: float
    hard: bool = False

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound (NaN is not)."""
        return self.error <= self.bound


def checks(device: torch.device) -> Iterator[Check]:
    """Compare every backend that can run on the device, for every recurrence, in every dtype of `CHECKED` it takes.

    Rows are soft, then hard.
    """
    scans = [(recurrence, False) for recurrence in RECURRENCES] + [("bdlru", True), ("hlru", True)]
    for (recurrence, hard), dtype in product(scans, CHECKED[device.type]):
        inputs = draw(recurrence, M, SIZES, dtype)
        want = outputs_and_gradients(recurrence, [x.double() for x in inputs], None, hard)
        for backend in BACKENDS:
            if unavailable(backend, device, dtype, normalization(recurrence, hard)) is None:
                got = outputs_and_gradients(recurrence, [x.to(device) for x in inputs], backend, hard)
                errors = torch.stack([relative_error(g.cpu(), w) for g, w in zip(got, want, strict=True)])
                error = float(errors.max())  # NaN if one is
                yield Check(str(device), backend, recurrence, dtype, error, BOUNDS[dtype], hard)


def draw(
    recurrence: str, m: int, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensors:
    """Standard normal gates, values, initial state and gradients of both outputs; `sizes` are (B, T, N)."""
    generator = torch.Generator(device).manual_seed(0)
    inner = () if recurrence == "hlru" else (m,)
    values, state = (*sizes, *inner), (sizes[0], sizes[2], m)
    gates = (*values, m if recurrence == "affine" else m + 1)
    dtypes = (dtype, dtype, state_dtype(dtype), dtype, state_dtype(dtype))
    tensors = tuple(
        torch.randn(shape, generator=generator, device=device, dtype=kind)
        for shape, kind in zip((gates, values, state, values, state), dtypes, strict=True)
    )
    if recurrence == "affine":
        tensors[0].div_(2 * m)  # nothing normalises it
    return tensors


def normalization(recurrence: str, hard: bool = False) -> str:
    """What a recurrence is checked with, as operators are told it."""
    return "none" if recurrence == "affine" else normalization_key("softmax", hard)


def outputs_and_gradients(
    recurrence: str, inputs: Sequence[Tensor], backend: str | None, hard: bool = False
) -> Tensors:
    """States, final state and the gradients of gates, values and initial state; backend None is the plain loop."""
    gates, values, state = (x.clone().requires_grad_() for x in inputs[:3])
    arguments = (recurrence, gates, values, state, None, normalization(recurrence, hard))
    outputs = reference.scan(*arguments) if backend is None else scan(*arguments, backend)
    gradients = torch.autograd.grad(outputs, (gates, values, state), inputs[3:])
    return tuple(x.detach() for x in (*outputs, *gradients))


def relative_error(got: Tensor, want: Tensor) -> Tensor:
    """Root-mean-square error relative to the expected numbers' root mean square."""
    return (got.double() - want).norm() / want.norm()
