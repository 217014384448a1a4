"""Forward and backward of the scans, timed apart as a share of a plain copy's speed measured in the same run."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.affine import Bounds, check_errors
from benchmarks.affine import draw as draw_raw
from benchmarks.measure import Call, Setup, free, set_count, share_of_copy
from benchmarks.records import Record, header
from benchmarks.shapes import ScanShape, parse_shapes, parse_sizes
from statemix.ops import explain_backend, in_fast_format

WHAT = (
    "forward and backward of one scan, rows of softmax gates, on sets of inputs that exceed the cache together; "
    "milliseconds; bytes are the least that a pass must move, in percent of the copy's speed"
)

DEFAULT_SHAPES = (
    "bdlru:1,bdlru:2,bdlru:4,bdlru:8,bdlru:16,hlru:4,hlru:8,hlru:16,hlru:4:1024,hlru:8:1024,hlru:16:1024"
)
DEFAULT_SIZES = "8x2048x1024,32x2048x1024,1x65536x1024"
ODD_SHAPES, ODD_SIZES = "bdlru:3,bdlru:5,bdlru:3:344,bdlru:5:208", "8x2048x1024"
"""Measured by default; the second pair besides the first."""

BOUNDS: dict[str, Bounds] = {"bfloat16": (4e-3, 8e-3), "float16": (5e-4, 1e-3), "float32": (2e-6, 5e-6)}

PASSES = ("forward", "backward", "both")


class Inputs(NamedTuple):
    """One set of what the two operators read; the initial state is zero, the final state has no gradient."""

    gates: Tensor
    values: Tensor
    initial: Tensor
    grad_states: Tensor
    grad_final: Tensor


def draw(shape: ScanShape, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Inputs in the fast memory format."""
    gates, values, grad = draw_raw(shape, device, dtype)
    zero = torch.zeros(shape.batch, shape.blocks, shape.m, device=device)
    values, grad = (in_fast_format(x, "values") for x in (values, grad))
    return Inputs(in_fast_format(gates, "gates"), values, zero, grad, zero.clone())


def _operator(shape: ScanShape, suffix: str = "") -> Any:
    return getattr(torch.ops.statemix, f"{shape.recurrence}_scan{suffix}")


def _normalization(shape: ScanShape) -> str:
    return "none" if shape.recurrence == "affine" else "hard:softmax" if shape.hard else "softmax"


def forward(shape: ScanShape, x: Inputs, backend: str) -> tuple[Tensor, Tensor]:
    """The registered operator: states and final state."""
    return _operator(shape)(x.gates, x.values, x.initial, None, _normalization(shape), backend)  # type: ignore[no-any-return]


def backward(shape: ScanShape, x: Inputs, states: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """The registered operator: gradients of gates, values and the initial state."""
    rest = (x.grad_states, x.grad_final, _normalization(shape), backend)
    return _operator(shape, "_backward")(x.gates, x.values, states, x.initial, None, *rest)  # type: ignore[no-any-return]


def _both(shape: ScanShape, x: Inputs, backend: str) -> object:
    states, final = forward(shape, x, backend)
    return states, final, backward(shape, x, states, backend)


def check(shape: ScanShape, x: Inputs, backend: str, dtype: str) -> dict[str, float]:
    """Errors of states and gradients at this very shape, on the corners that float64 can afford.

    RuntimeError if one is over its bound or anything anywhere is not finite. The memory of the outputs is filled with
    NaN first, so that a number that is never written shows.
    """
    poison = [
        torch.full_like(like, float("nan")) for like in (x.gates, x.values, x.values, x.initial, x.initial)
    ]
    del poison
    states, final = forward(shape, x, backend)
    d_gates, d_values, d_initial = backward(shape, x, states, backend)
    outputs = {
        "states": states,
        "d_gates": d_gates,
        "d_values": d_values,
        "final": final,
        "d_initial": d_initial,
    }
    for name, tensor in outputs.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RuntimeError(f"{name}: not finite at {shape}")
    return check_errors(shape, (x.gates, x.values, x.grad_states), (states, d_gates, d_values), BOUNDS[dtype])


def measure(shape: ScanShape, setup: Setup, copy: Record) -> Record:
    """Check a shape, then time it: forward, backward, and both one after the other as in training."""
    device, dtype = setup.device, setup.torch_dtype
    backend, why = explain_backend(device, dtype, _normalization(shape))
    if device.type == "cuda" and backend != "triton":
        raise RuntimeError(f"backend: 'triton' cannot run: {why}")
    least = shape.bytes(dtype.itemsize)
    sets = [draw(shape, device, dtype) for _ in range(set_count(device, least["forward"]))]
    row: Record = {"dtype": setup.dtype, "backend": backend, "sets": len(sets)}
    row["errors"] = check(shape, sets[0], backend, setup.dtype)
    free(device)
    states = [forward(shape, x, backend)[0] for x in sets]
    calls: dict[str, list[Call]] = {
        "forward": [partial(forward, shape, x, backend) for x in sets],
        "backward": [partial(backward, shape, x, h, backend) for x, h in zip(sets, states, strict=True)],
        "both": [partial(_both, shape, x, backend) for x in sets],
    }
    for name in PASSES:
        row[name] = share_of_copy(setup.sample(calls[name]), least[name], copy)
    return row


def default_shapes() -> list[ScanShape]:
    """Measured by default."""
    usual = parse_shapes(DEFAULT_SHAPES, parse_sizes(DEFAULT_SIZES))
    return usual + parse_shapes(ODD_SHAPES, parse_sizes(ODD_SIZES))


def beside_hard(shapes: list[ScanShape]) -> list[ScanShape]:
    """Every shape, and after it the same with hard rows where it has gates."""
    pairs = [(shape, shape._replace(hard=True)) for shape in shapes]
    return [one for pair in pairs for one in pair if one.recurrence != "affine" or not one.hard]


def new_record(setup: Setup, copy: Record) -> Record:
    """A record without rows."""
    bounds = dict(zip(("states", "gradients"), BOUNDS[setup.dtype], strict=True))
    facts = {"passes": list(PASSES), "dtype": setup.dtype, "bounds": bounds, "copy": copy}
    return {**header("scan", WHAT, setup.device), **facts, "cases": [], "baselines": {}}
