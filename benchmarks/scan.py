"""The scans, forward and backward: checked against float64, then timed side by side."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.timing import interleaved
from statemix.environment import describe
from statemix.ops.dispatch import choose_backend
from statemix.ops.layout import Role, in_fast_format

DEVICES = ("cpu",)
TOLERANCE = 2e-5
"""How far a contestant's float32 states and gradients may be from float64, relative to the largest."""


def draw(case: Case, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Raw gates, values and the gradient of the states: float32, standard normal, N innermost in memory."""
    generator = torch.Generator().manual_seed(seed)
    gates, values = case.shapes()

    def fast(shape: tuple[int, ...], role: Role) -> Tensor:
        return in_fast_format(torch.randn(shape, generator=generator), role)

    return fast(gates, "gates"), fast(values, "values"), fast(values, "values")


def prepare(contestant: Contestant, case: Case, inputs: tuple[Tensor, ...]) -> Callable[[], list[Tensor]]:
    """A function without arguments that runs the contestant forward and backward: [states, gradients...]."""
    laid_out = inputs if contestant.fast_layout else tuple(x.contiguous() for x in inputs)
    gates, values, grad = (x.detach() for x in laid_out)
    gates, values = gates.requires_grad_(), values.requires_grad_()
    scan = contestant.scans[case.recurrence]

    def run() -> list[Tensor]:
        states = scan(gates, values)
        return [states.detach(), *torch.autograd.grad(states, (gates, values), grad)]

    return run


def errors(case: Case) -> dict[str, float]:
    """Every contestant's largest error against the loop in float64, states and gradients, relative to the largest.

    Taken on at most two sequences of the case.
    """
    small = case._replace(batch=min(case.batch, 2))
    inputs = draw(small)
    want = prepare(CONTESTANTS["loop"], small, tuple(x.double() for x in inputs))()
    return {
        name: max(_relative(got, true) for got, true in zip(prepare(c, small, inputs)(), want, strict=True))
        for name, c in CONTESTANTS.items()
    }


def _relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max())


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Check every contestant, then time them in turns; RuntimeError if one is wrong."""
    deviations = errors(case)
    for name, error in deviations.items():
        if not error <= TOLERANCE:
            raise RuntimeError(
                f"{name}: error {error:.1e} against float64 at {case}, expected at most {TOLERANCE}"
            )
    inputs = draw(case)
    timings = interleaved({name: prepare(c, case, inputs) for name, c in CONTESTANTS.items()}, repeats)
    results = {name: {"ms": timings[name], "error": deviations[name]} for name in CONTESTANTS}
    return {**case._asdict(), "results": results}


def run(cases: list[Case], *, device: str = "cpu", repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Measure the cases one after another. ValueError for a device that has no compiled kernels."""
    if device not in DEVICES:
        raise ValueError(
            f"device: got {device!r}, expected 'cpu' (a GPU's scans are measured in two passes: bench.passes)"
        )
    if repeats < 1:
        raise ValueError(f"repeats: got {repeats}, expected at least 1")
    choose_backend("cpu", torch.device("cpu"))
    return (measure(case, repeats) for case in cases)


def record(rows: list[dict[str, Any]], *, command: str, device: str = "cpu") -> dict[str, Any]:
    """What is kept of a measurement: date, place, versions, who was measured, and the numbers."""
    return {
        "bench": "scan",
        "what": "forward + backward, float32, softmax gates, gradients of gates and values; milliseconds",
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **describe(device),
        "contestants": {name: c.description for name, c in CONTESTANTS.items()},
        "cases": rows,
    }
