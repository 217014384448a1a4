"""Scans as affine recurrences, by torch's associative scan: in float64, what every measured scan is checked against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from statemix_research.baselines.associative import Pair, associative
from statemix_research.baselines.verify import relative_error
from torch import Tensor

from benchmarks.shapes import ScanShape
from statemix.ops import normalize

Bounds = tuple[float, float]
"""The largest root-mean-square error against float64, relative to the true one's: of the states, of each gradient."""


def as_affine(recurrence: str, gates: Tensor, values: Tensor, *, hard: bool = False) -> Pair:
    """Raw gates and values as A [B, T, N, m, m] and b [B, T, N, m] of h_t = A_t h_{t-1} + b_t; rows of softmax gates.

    H-LRU becomes companion matrices: its state is the window of the last m, newest first.
    """
    if recurrence == "affine":
        return gates, values
    weights = normalize(gates, hard=hard)  # [..., m+1]
    transitions, inputs = weights[..., :-1], weights[..., -1] * values
    if recurrence == "bdlru":
        return transitions, inputs
    m = transitions.shape[-1]
    shift = torch.eye(m, dtype=gates.dtype, device=gates.device)[:-1].expand(*values.shape, m - 1, m)
    window = torch.cat([inputs.unsqueeze(-1), inputs.new_zeros(*inputs.shape, m - 1)], dim=-1)
    return torch.cat([transitions.unsqueeze(-2), shift], dim=-2), window


def scan_as_affine(
    scan: Callable[[Tensor, Tensor], Tensor],
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    *,
    hard: bool = False,
) -> Tensor:
    """The states of a recurrence, shaped like the values, by a scan of its affine form."""
    states = scan(*as_affine(recurrence, gates, values, hard=hard))
    return states[..., 0] if recurrence == "hlru" else states


def draw(shape: ScanShape, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Raw gates, values and the states' gradient, contiguous; transitions that shrink for an affine scan."""
    dims, scale = shape.dims(), 0.5 / shape.m if shape.recurrence == "affine" else 1.0
    gates, values, grad = (torch.randn(one, device=device, dtype=dtype) for one in (*dims, dims[1]))
    return gates.mul_(scale), values, grad


def float64_scan(
    recurrence: str, gates: Tensor, values: Tensor, grad_states: Tensor, *, hard: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """States and the gradients of gates and values in float64, from a zero state.

    Shapes as in `statemix.ops.bdlru_scan`; grad_states is shaped like the values.
    """
    leaves = [x.detach().double().requires_grad_() for x in (gates, values)]
    states = scan_as_affine(associative, recurrence, *leaves, hard=hard)
    d_gates, d_values = torch.autograd.grad(states, leaves, grad_states.double(), materialize_grads=True)
    return states.detach(), d_gates, d_values


def corner(tensor: Tensor) -> Tensor:
    """The first and last sequences, of them the first and last two blocks: [<= 2, T, <= 4, ...]."""
    sequences, blocks = tensor.shape[0], tensor.shape[2]
    kept = sorted({block % blocks for block in (0, min(1, blocks - 1), -1, -min(2, blocks))})
    return tensor[sorted({0, sequences - 1})][:, :, kept]


def check_errors(
    shape: ScanShape, inputs: Sequence[Tensor], got: Sequence[Tensor], bounds: Bounds
) -> dict[str, float]:
    """Errors of states, d_gates and d_values against float64, on the corners; RuntimeError if one is over its bound.

    inputs: gates, values and the states' gradient.
    """
    want, errors = float64_scan(shape.recurrence, *map(corner, inputs), hard=shape.hard), {}
    for name, tensor, true in zip(("states", "d_gates", "d_values"), got, want, strict=True):
        errors[name], bound = relative_error(corner(tensor), true), bounds[name != "states"]
        if not errors[name] <= bound:
            raise RuntimeError(
                f"{name}: error {errors[name]:.1e} against float64 at {shape}, expected at most {bound:.0e}"
            )
    return errors
