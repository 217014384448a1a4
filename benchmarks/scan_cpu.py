"""Scans forward and backward on the CPU, beside torch's associative scan and a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from statemix_research.baselines.associative import associative
from torch import Tensor

from benchmarks.affine import scan_as_affine
from benchmarks.measure import BUDGET_MS, Setup, as_record
from benchmarks.records import Record, header
from benchmarks.scan_baselines import ScanBaseline, check, make_calls, raw
from benchmarks.shapes import ScanShape
from statemix.ops import affine_scan, bdlru_scan, explain_backend, hlru_scan, in_fast_format
from statemix.timing import time_calls

WHAT = "forward + backward, float32, softmax gates or hard ones, gradients of gates and values; milliseconds"
DEFAULT_SHAPES = "bdlru:1,bdlru:2,bdlru:4,bdlru:8,hlru:4"
CPU = torch.device("cpu")
BOUNDS = (2e-6, 2e-6)
"""Of float32 states and gradients."""

SCANS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "bdlru": bdlru_scan,
    "hlru": hlru_scan,
    "affine": affine_scan,
}
Scan = Callable[..., Tensor]


def _by_backend(backend: str, recurrence: str, gates: Tensor, values: Tensor, hard: bool = False) -> Tensor:
    options = {"hard": True} if hard else {}  # affine scans have no rows
    return SCANS[recurrence](gates, values, backend=backend, **options)[0]


def _n_innermost(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return in_fast_format(gates, "gates"), in_fast_format(values, "values")


IMPLEMENTATIONS: dict[str, tuple[str, bool, Scan]] = {
    "statemix": ("compiled CPU kernels, N innermost in memory", True, partial(_by_backend, "cpu")),
    "associative_scan": (
        "torch's generic associative scan over (A, b), matrix products, differentiated by autograd",
        False, partial(scan_as_affine, associative),
    ),
    "associative_scan_fast": (
        "the same with N innermost in memory, products and sums along N",
        True, partial(scan_as_affine, partial(associative, fast=True)),
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
            description,
            "torch",
            False,
            shape.m,
            torch.float32,
            inputs,
            partial(scan, shape.recurrence, hard=shape.hard),
        )
        try:
            errors[name] = check(one, shape._replace(batch=min(shape.batch, 2)), CPU, BOUNDS)
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {error}") from None
        calls[name] = make_calls(one, shape, CPU)["both"]
    times = time_calls(calls, device=CPU, repeats=setup.repeats, budget_ms=BUDGET_MS)
    return {"results": {name: as_record(times[name]) | {"error": errors[name]} for name in IMPLEMENTATIONS}}


def new_record() -> Record:
    """A record without rows."""
    names = {name: description for name, (description, _, _) in IMPLEMENTATIONS.items()}
    return {**header("scan", WHAT, CPU), "implementations": names, "cases": []}
