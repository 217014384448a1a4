"""Scans of other packages, measured in the same run where they are installed.

A baseline is data: what it is, beside which shape it is measured, how it runs, and, where it computes the same as
statemix, how it is checked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.affine import associative, corner, float64_scan, relative_rms, shifted
from benchmarks.measure import Call, Setup, set_count, short_autotuning
from benchmarks.packages import ACCELERATED_SCAN, FLA, TORCH, Package, skip_reason
from benchmarks.records import Record, attempt, free
from benchmarks.shapes import ScanShape

BOUND = 5e-2
"""The largest root-mean-square error against float64 (normalised gates rounded to bfloat16 are within it)."""

BUDGET_MS = 4000.0
"""Milliseconds that the samples of one pass of a baseline may take."""


class ScanBaseline(NamedTuple):
    """A scan measured beside BD-LRU's of block size m; its own layout and gates are made before it is timed."""

    description: str
    package: Package
    m: int
    dtype: torch.dtype
    needs_gpu: bool
    inputs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    """Raw gates and values -> what the scan takes."""
    scan: Callable[..., Tensor]
    restore: Callable[[Tensor], Tensor] = lambda states: states
    """The scan's states -> [B, T, N, m]."""
    both: Callable[[Tensor, Tensor, Tensor], list[Tensor]] | None = None
    """Raw gates, values and the states' gradient -> [states, d_gates, d_values]; without it autograd does."""


def pairs_forward(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax, then an associative scan over pairs (A, b), the algorithm of arXiv 2602.12021: (weights, states)."""
    weights = torch.softmax(gates, dim=-1)  # [B, T, N, m, m+1]
    return weights, associative(weights[..., :-1], weights[..., -1] * values)


def pairs_both(gates: Tensor, values: Tensor, grad: Tensor) -> list[Tensor]:
    """The same with its adjoint by hand, a second scan in the other direction: [states, d_gates, d_values]."""
    weights, states = pairs_forward(gates, values)
    transitions, inputs = weights[..., :-1], weights[..., -1]
    after = shifted(transitions, -1).transpose(-1, -2)
    adjoint = associative(after.flip(1), grad.flip(1)).flip(1)  # l_t = dh_t + A_{t+1}ᵀ l_{t+1}
    d_transitions = adjoint.unsqueeze(-1) * shifted(states, 1).unsqueeze(-2)
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
        TORCH, 4, torch.float32, False, raw, lambda *x: pairs_forward(*x)[1], both=pairs_both,
    ),
    "accelerated_scan": ScanBaseline(
        "accelerated_scan.warp: scalar gates, softmax not timed, time innermost",
        ACCELERATED_SCAN, 1, torch.bfloat16, True, _warp_inputs, _warp_scan, lambda h: h.transpose(1, 2).unsqueeze(-1),
    ),
    "chunk_hgrn": ScanBaseline(
        "fla's chunk_hgrn: logarithms of scalar gates, softmax not timed",
        FLA, 1, torch.bfloat16, True, _hgrn_inputs, _hgrn_scan, lambda h: h.unsqueeze(-1),
    ),
    "associative_scan_compiled": ScanBaseline(
        "associative_scan under torch.compile", TORCH, 4, torch.float32, True,
        raw, lambda *x: _compiled(pairs_forward)(*x)[1], both=lambda *x: _compiled(pairs_both)(*x),
    ),
}  # fmt: skip


def draw_raw(shape: ScanShape, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Raw gates, values and the states' gradient, plainly contiguous; transitions that shrink for an affine scan."""
    dims, scale = shape.dims(), 0.5 / shape.m if shape.recurrence == "affine" else 1.0
    gates, values, grad = (torch.randn(one, device=device, dtype=dtype) for one in (*dims, dims[1]))
    return scale * gates, values, grad


def check(baseline: ScanBaseline, shape: ScanShape, device: torch.device, bound: float = BOUND) -> float:
    """The largest root-mean-square error of states and gradients on the shape's corners; RuntimeError if wrong."""
    gates, values, grad = draw_raw(shape, device, baseline.dtype)
    if baseline.both is not None:
        got = baseline.both(gates, values, grad)
    else:
        leaves = (gates.requires_grad_(), values.requires_grad_())
        states = baseline.restore(baseline.scan(*baseline.inputs(*leaves)))
        got = [states.detach(), *torch.autograd.grad(states, leaves, grad)]
    want = float64_scan(shape.recurrence, *(corner(x.detach()) for x in (gates, values, grad)))
    error = max(relative_rms(corner(g), w) for g, w in zip(got, want, strict=True))
    if not error <= bound:
        raise RuntimeError(
            f"wrong: error {error:.1e} against float64 at {shape}, expected at most {bound:.0e}"
        )
    return error


def make_calls(baseline: ScanBaseline, shape: ScanShape, device: torch.device) -> dict[str, Call]:
    """Forward alone, and with the gradients of all inputs, on inputs of their own."""
    raw = draw_raw(shape, device, baseline.dtype)
    inputs = baseline.inputs(*raw[:2])
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    both = baseline.both

    def forward() -> Tensor:
        with torch.no_grad():
            return baseline.scan(*inputs)

    grad = torch.randn_like(forward())

    def by_autograd() -> list[Tensor]:
        states = baseline.scan(*leaves)
        return [states, *torch.autograd.grad(states, leaves, grad)]

    return {"forward": forward, "both": by_autograd if both is None else lambda: both(*raw)}


def measure(baseline: ScanBaseline, shape: ScanShape, setup: Setup) -> Record:
    """Check a baseline, then time it at a shape, launch by launch (its kernels may not support capture)."""
    row: Record = {"error": check(baseline, shape, setup.device)}
    free(setup.device)
    row["sets"] = set_count(setup.device, 2 * baseline.dtype.itemsize * sum(map(math.prod, shape.dims())))
    sets = [make_calls(baseline, shape, setup.device) for _ in range(row["sets"])]
    for name in ("forward", "both"):
        calls = [one[name] for one in sets]
        row[name] = setup._replace(budget_ms=BUDGET_MS).sample(calls, cuda_graph=False)
    return row


def run_baseline(name: str, rows: Sequence[Record], setup: Setup) -> Record:
    """A baseline beside the first measured shape of its block size, or why it was skipped."""
    baseline = BASELINES[name]
    row: Record = {"description": baseline.description, "package": baseline.package.installed}
    row["dtype"] = str(baseline.dtype).removeprefix("torch.")
    beside = [r for r in rows if (r["recurrence"], r["m"]) == ("bdlru", baseline.m) and "both" in r]
    skipped = skip_reason(baseline.package, baseline.needs_gpu, setup.device)
    if skipped or not beside:
        return row | {"skipped": skipped or f"no shape bdlru:{baseline.m} was measured"}
    shape = ScanShape(*(beside[0][field] for field in ScanShape._fields))

    def measured() -> Record:
        with short_autotuning():
            times = measure(baseline, shape, setup)
        return times | {"relative_time": times["both"]["ms"]["median"] / beside[0]["both"]["ms"]["median"]}

    return attempt(row | {"case": shape._asdict()}, setup.device, measured)
