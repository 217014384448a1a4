"""Scans of other packages, measured in the same run where they are installed.

A baseline is data: what it is, beside which shape it is measured, how it runs, and, where it computes the same as
statemix, how it is checked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from statemix_research.baselines.associative import associative, gated
from torch import Tensor

from benchmarks.affine import Bounds, check_errors, draw
from benchmarks.measure import (
    Baseline,
    Call,
    Setup,
    free,
    measure_baseline,
    set_count,
)
from benchmarks.records import Record
from benchmarks.shapes import ScanShape

BOUNDS = (5e-2, 5e-2)
"""Normalised gates rounded to bfloat16 are within them."""


@dataclass(frozen=True)
class ScanBaseline(Baseline):
    """A scan measured beside BD-LRU's of block size m; its own layout and gates are made before it is timed."""

    m: int
    dtype: torch.dtype
    inputs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    """Raw gates and values -> what the scan takes."""
    scan: Callable[..., Tensor]
    restore: Callable[[Tensor], Tensor] = lambda states: states
    """The scan's states -> [B, T, N, m]."""
    both: Callable[[Tensor, Tensor, Tensor], list[Tensor]] | None = None
    """Raw gates, values and the states' gradient -> [states, d_gates, d_values]; without it autograd does."""


def pairs_both(gates: Tensor, values: Tensor, grad: Tensor) -> list[Tensor]:
    """`gated` with its adjoint by hand, a second scan in the other direction: [states, d_gates, d_values]."""
    weights, states = gated(gates, values)
    transitions, inputs = weights[..., :-1], weights[..., -1]
    zero = torch.zeros_like(transitions[:, :1])
    after = torch.cat([transitions[:, 1:], zero], dim=1).transpose(-1, -2)
    adjoint = associative(after.flip(1), grad.flip(1)).flip(1)  # l_t = dh_t + A_{t+1}ᵀ l_{t+1}
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    d_transitions = adjoint.unsqueeze(-1) * before.unsqueeze(-2)
    d_weights = torch.cat([d_transitions, (adjoint * values).unsqueeze(-1)], dim=-1)
    d_gates = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
    return [states, d_gates, inputs * adjoint]


@functools.cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


def _diagonal(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Raw gates [B, T, N, 1, 2] and values [B, T, N, 1] to a and b of h_t = a h_{t-1} + b, [B, T, N]."""
    weights = torch.softmax(gates, dim=-1)[..., 0, :]
    return weights[..., 0], weights[..., 1] * values[..., 0]


def _warp_inputs(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _diagonal(gates, values)
    return a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous()  # time innermost


def _warp_scan(a: Tensor, b: Tensor) -> Tensor:
    from accelerated_scan.warp import scan

    return scan(a, b)


def _hgrn_inputs(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    log_gates = torch.log_softmax(gates, dim=-1)[..., 0, 0]
    return _diagonal(gates, values)[1].contiguous(), log_gates.contiguous()


def _hgrn_scan(x: Tensor, log_gates: Tensor) -> Tensor:
    from fla.ops.hgrn import chunk_hgrn

    return chunk_hgrn(x, log_gates)[0]


def raw(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """As they are."""
    return gates, values


BASELINES: dict[str, ScanBaseline] = {
    "associative_scan": ScanBaseline(
        "softmax, torch's associative scan over pairs (A, b), adjoint by hand (arXiv 2602.12021)",
        "torch", False, 4, torch.float32, raw, lambda *x: gated(*x)[1], both=pairs_both,
    ),
    "accelerated_scan": ScanBaseline(
        "accelerated_scan.warp: scalar gates, softmax not timed, time innermost",
        "accelerated_scan", True, 1, torch.bfloat16, _warp_inputs, _warp_scan,
        lambda h: h.transpose(1, 2).unsqueeze(-1),
    ),
    "chunk_hgrn": ScanBaseline(
        "fla's chunk_hgrn: logarithms of scalar gates, softmax not timed",
        "fla", True, 1, torch.bfloat16, _hgrn_inputs, _hgrn_scan, lambda h: h.unsqueeze(-1),
    ),
    "associative_scan_compiled": ScanBaseline(
        "associative_scan under torch.compile", "torch", True, 4, torch.float32,
        raw, lambda *x: _compiled(gated)(*x)[1], both=lambda *x: _compiled(pairs_both)(*x),
    ),
}  # fmt: skip


def check(baseline: ScanBaseline, shape: ScanShape, device: torch.device, bounds: Bounds = BOUNDS) -> float:
    """The largest error of states and gradients on the shape's corners; RuntimeError if one is over its bound."""
    gates, values, grad = draw(shape, device, baseline.dtype)
    if baseline.both is not None:
        got = baseline.both(gates, values, grad)
    else:
        leaves = (gates.requires_grad_(), values.requires_grad_())
        states = baseline.restore(baseline.scan(*baseline.inputs(*leaves)))
        got = [states.detach(), *torch.autograd.grad(states, leaves, grad)]
    return max(check_errors(shape, (gates, values, grad), got, bounds).values())


def make_calls(baseline: ScanBaseline, shape: ScanShape, device: torch.device) -> dict[str, Call]:
    """Forward alone, and with the gradients of all inputs, on inputs of their own."""
    drawn = draw(shape, device, baseline.dtype)
    inputs = baseline.inputs(*drawn[:2])
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    both = baseline.both

    def forward() -> Tensor:
        with torch.no_grad():
            return baseline.scan(*inputs)

    grad = torch.randn_like(forward())

    def by_autograd() -> list[Tensor]:
        states = baseline.scan(*leaves)
        return [states, *torch.autograd.grad(states, leaves, grad)]

    return {"forward": forward, "both": by_autograd if both is None else lambda: both(*drawn)}


def measure(baseline: ScanBaseline, shape: ScanShape, setup: Setup) -> Record:
    """Check a baseline, then time it at a shape, launch by launch (its kernels may not support capture)."""
    row: Record = {"error": check(baseline, shape, setup.device)}
    free(setup.device)
    row["sets"] = set_count(setup.device, 2 * baseline.dtype.itemsize * sum(map(math.prod, shape.dims())))
    sets = [make_calls(baseline, shape, setup.device) for _ in range(row["sets"])]
    for name in ("forward", "both"):
        row[name] = setup.sample([one[name] for one in sets], cuda_graph=False)
    return row


def run_baseline(name: str, rows: Sequence[Record], setup: Setup) -> Record:
    """A baseline beside the first measured shape of its block size, or why it was skipped."""
    baseline = BASELINES[name]
    row: Record = {"dtype": str(baseline.dtype).removeprefix("torch.")}
    beside = next(
        (
            r
            for r in rows
            if (r["recurrence"], r["m"], r["hard"]) == ("bdlru", baseline.m, False) and "both" in r
        ),
        None,
    )
    if beside is None:
        return measure_baseline(baseline, row, setup.device, f"no shape bdlru:{baseline.m} was measured")
    shape, own = ScanShape(*(beside[field] for field in ScanShape._fields)), beside["both"]["ms"]["median"]

    def measured() -> Record:
        times = measure(baseline, shape, setup)
        return times | {"relative_time": times["both"]["ms"]["median"] / own}

    return measure_baseline(baseline, row | {"case": shape._asdict()}, setup.device, measured)
