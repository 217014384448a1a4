"""Forward and backward of the scans, timed apart as a share of a plain copy's speed measured in the same run."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.affine import corner, float64_scan, relative_rms
from benchmarks.measure import Call, Setup, set_count, share_of_copy
from benchmarks.records import Record, free, header
from benchmarks.shapes import ScanShape, parse_shapes, parse_sizes
from statemix.ops import explain_backend

DEFAULT_SHAPES = (
    "bdlru:1,bdlru:2,bdlru:4,bdlru:8,bdlru:16,hlru:4,hlru:8,hlru:16,hlru:4:1024,hlru:8:1024,hlru:16:1024"
)
DEFAULT_SIZES = "8x2048x1024,32x2048x1024,1x65536x1024"
ODD_SHAPES, ODD_SIZES = "bdlru:3,bdlru:5,bdlru:3:344,bdlru:5:208", "8x2048x1024"
"""Measured by default; the second pair besides the first."""

BOUNDS: dict[str, tuple[float, float]] = {
    "bfloat16": (4e-3, 8e-3),
    "float16": (5e-4, 1e-3),
    "float32": (2e-6, 5e-6),
}
"""The largest root-mean-square error against float64, relative to the true one's: of the states, of each gradient."""

PASSES = ("forward", "backward", "both")


class Inputs(NamedTuple):
    """One set of what the two operators read; the initial state is zero, the final state has no gradient."""

    gates: Tensor
    values: Tensor
    initial: Tensor
    grad_states: Tensor
    grad_final: Tensor


def fast_randn(
    dims: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    gates: bool,
) -> Tensor:
    """Standard normal numbers in the fast memory format: on a CPU N innermost, elsewhere gate planes outermost.

    dims: [B, T, N, ...], those of gates or of values.
    """
    if device.type == "cpu":
        source, target = 2, -1
    else:
        source, target = (-1, 0) if gates else (0, 0)
    order = torch.empty(dims, device="meta").movedim(source, target).shape
    return torch.randn(order, device=device, dtype=dtype, generator=generator).movedim(target, source)


def draw(shape: ScanShape, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Inputs in the fast memory format; transitions that shrink for an affine scan."""
    generator = torch.Generator(device).manual_seed(seed)
    fast = partial(fast_randn, device=device, dtype=dtype, generator=generator)
    gates, values = shape.dims()
    state = torch.zeros(shape.batch, shape.blocks, shape.m, device=device)
    inputs = Inputs(
        fast(gates, gates=True), fast(values, gates=False), state, fast(values, gates=False), state.clone()
    )
    if shape.recurrence == "affine":
        inputs.gates.mul_(0.5 / shape.m)
    return inputs


def _operator(shape: ScanShape, suffix: str = "") -> Any:
    return getattr(torch.ops.statemix, f"{shape.recurrence}_scan{suffix}")


def _normalization(shape: ScanShape) -> str:
    return "none" if shape.recurrence == "affine" else "softmax"


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
    got = {"states": states, "d_gates": d_gates, "d_values": d_values}
    for name, tensor in {**got, "final": final, "d_initial": d_initial}.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RuntimeError(f"{name}: not finite at {shape}")
    want = float64_scan(shape.recurrence, corner(x.gates), corner(x.values), corner(x.grad_states))
    errors = {}
    for (name, tensor), true in zip(got.items(), want, strict=True):
        errors[name], bound = relative_rms(corner(tensor), true), BOUNDS[dtype][name != "states"]
        if not errors[name] <= bound:
            raise RuntimeError(
                f"{name}: error {errors[name]:.1e} against float64 at {shape}, expected at most {bound:.0e}"
            )
    return errors


def measure(shape: ScanShape, setup: Setup, copy: Record) -> Record:
    """Check a shape, then time it: forward, backward, and both one after the other as in training."""
    device, dtype = setup.device, setup.torch_dtype
    backend, why = explain_backend(device, dtype)
    if device.type == "cuda" and backend != "triton":
        raise RuntimeError(f"backend: 'triton' cannot run: {why}")
    least = shape.bytes(dtype.itemsize)
    sets = [draw(shape, device, dtype, seed) for seed in range(set_count(device, least["forward"]))]
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


def make_record(
    rows: list[Record], baselines: dict[str, Record], *, setup: Setup, copy: Record, command: str
) -> Record:
    """Everything measured, ready for JSON."""
    what = (
        "forward and backward of one scan, softmax gates, on sets of inputs that exceed the cache together; "
        "milliseconds; bytes are the least that a pass must move, in percent of the copy's speed"
    )
    bounds = dict(zip(("states", "gradients"), BOUNDS[setup.dtype], strict=True))
    return {
        **header("scan", what, command, setup.device),
        "passes": list(PASSES),
        "dtype": setup.dtype,
        "bounds": bounds,
        "copy": copy,
        "cases": rows,
        "baselines": baselines,
    }
