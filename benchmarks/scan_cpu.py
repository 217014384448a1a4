"""Scans forward and backward on the CPU, beside torch's associative scan and a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.affine import as_affine, associative, associative_fast
from benchmarks.measure import Setup, as_record
from benchmarks.packages import TORCH
from benchmarks.records import Record, header
from benchmarks.scan_baselines import ScanBaseline, check, make_calls, raw
from benchmarks.shapes import ScanShape
from statemix.ops import affine_scan, bdlru_scan, explain_backend, hlru_scan
from statemix.timing import time_calls

DEFAULT_SHAPES = "bdlru:1,bdlru:2,bdlru:4,bdlru:8,hlru:4"
CPU = torch.device("cpu")
BOUND = 2e-6
"""The largest root-mean-square error of float32 states and gradients against float64."""

SCANS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "bdlru": bdlru_scan,
    "hlru": hlru_scan,
    "affine": affine_scan,
}
Scan = Callable[[str, Tensor, Tensor], Tensor]


def _by_affine(
    scan: Callable[[Tensor, Tensor], Tensor], recurrence: str, gates: Tensor, values: Tensor
) -> Tensor:
    states = scan(*as_affine(recurrence, gates, values))
    return states[..., 0] if recurrence == "hlru" else states


def _by_backend(backend: str, recurrence: str, gates: Tensor, values: Tensor) -> Tensor:
    return SCANS[recurrence](gates, values, backend=backend)[0]


def _n_innermost(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    gates, values = (x.movedim(2, -1).contiguous().movedim(-1, 2) for x in (gates, values))
    return gates, values


IMPLEMENTATIONS: dict[str, tuple[str, bool, Scan]] = {
    "statemix": ("compiled CPU kernels, N innermost in memory", True, partial(_by_backend, "cpu")),
    "associative_scan": (
        "torch's generic associative scan over (A, b), matrix products, differentiated by autograd",
        False, partial(_by_affine, associative),
    ),
    "associative_scan_fast": (
        "the same with N innermost in memory, products and sums along N", True, partial(_by_affine, associative_fast)
    ),
    "loop": ("the defining loop over time, differentiated by autograd", True, partial(_by_backend, "reference")),
}  # fmt: skip
"""What it is, whether it takes N innermost in memory, and the scan; ratios are to the first."""


def measure(shape: ScanShape, setup: Setup) -> Record:
    """Check every implementation, then time all in rounds; RuntimeError if one is wrong or cannot run."""
    backend, why = explain_backend(CPU)
    if backend != "cpu":
        raise RuntimeError(f"backend: 'cpu' cannot run: {why}")
    calls: Any = {}
    errors = {}
    for name, (description, fast, scan) in IMPLEMENTATIONS.items():
        inputs = _n_innermost if fast else raw
        one = ScanBaseline(
            description, TORCH, shape.m, torch.float32, False, inputs, partial(scan, shape.recurrence)
        )
        try:
            errors[name] = check(one, shape._replace(batch=min(shape.batch, 2)), CPU, BOUND)
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {error}") from None
        calls[name] = make_calls(one, shape, CPU)["both"]
    times = time_calls(calls, device=CPU, repeats=setup.repeats, budget_ms=setup.budget_ms)
    return {"results": {name: as_record(times[name]) | {"error": errors[name]} for name in IMPLEMENTATIONS}}


def make_record(rows: list[Record], *, command: str) -> Record:
    """Everything measured, ready for JSON."""
    what = "forward + backward, float32, softmax gates, gradients of gates and values; milliseconds"
    names = {name: description for name, (description, _, _) in IMPLEMENTATIONS.items()}
    return {**header("scan", what, command, CPU), "implementations": names, "cases": rows}
