"""Forward and backward of our scans apart, against the speed of a plain copy measured in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import cuda
from benchmarks.cases import Case, parse_shapes, parse_sizes
from benchmarks.clock import against_copy, free, set_count, time_calls
from benchmarks.exact import corner, exact, relative_rms
from benchmarks.record_files import header
from statemix.ops.autograd import operator
from statemix.ops.dispatch import choose_backend
from statemix.ops.layout import Role, empty_fast, to_fast_order

DEFAULT_SHAPES = (
    "bdlru:1,bdlru:2,bdlru:4,bdlru:8,bdlru:16,hlru:4,hlru:8,hlru:16,hlru:4:1024,hlru:8:1024,hlru:16:1024"
)
DEFAULT_SIZES = "8x2048x1024,32x2048x1024,1x65536x1024"
ODD_SHAPES, ODD_SIZES = "bdlru:3,bdlru:5,bdlru:3:344,bdlru:5:208", "8x2048x1024"
"""What is measured unless something else is asked for; the second pair besides the first."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

BOUNDS: dict[str, tuple[float, float]] = {
    "bfloat16": (4e-3, 8e-3),
    "float16": (5e-4, 1e-3),
    "float32": (2e-6, 5e-6),
}
"""The largest root-mean-square error against float64, relative to the true one's: of the states, of each gradient."""

BACKENDS = {"cuda": "triton"}
"""What is measured on a type of device; elsewhere what "auto" picks."""

PASSES = ("forward", "backward", "both")


class Inputs(NamedTuple):
    """One set of what the two operators read; the initial state is zero, the final state has no gradient."""

    gates: Tensor
    values: Tensor
    initial: Tensor
    grad_states: Tensor
    grad_final: Tensor


def draw(case: Case, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Standard normal numbers in the device's fast memory format; transitions that shrink for an affine scan."""
    generator = torch.Generator(device).manual_seed(seed)
    empty = torch.empty((), device=device, dtype=dtype)

    def fast(shape: tuple[int, ...], role: Role) -> Tensor:
        tensor = empty_fast(empty.expand(shape), role)
        to_fast_order(tensor, role).normal_(generator=generator)
        return tensor

    gates, values = case.shapes()
    state = torch.zeros(case.batch, case.blocks, case.m, device=device)
    inputs = Inputs(
        fast(gates, "gates"), fast(values, "values"), state, fast(values, "values"), state.clone()
    )
    if case.recurrence == "affine":
        inputs.gates.mul_(0.5 / case.m)
    return inputs


def _normalization(case: Case) -> str:
    return "none" if case.recurrence == "affine" else "softmax"


def forward(case: Case, x: Inputs, backend: str) -> tuple[Tensor, Tensor]:
    """The registered operator: states and final state."""
    return operator(case.recurrence)(x.gates, x.values, x.initial, None, _normalization(case), backend)


def backward(case: Case, x: Inputs, states: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """The registered operator: gradients of gates, values and the initial state."""
    rest = (x.grad_states, x.grad_final, _normalization(case), backend)
    return operator(case.recurrence, "_backward")(x.gates, x.values, states, x.initial, None, *rest)


def _poison(case: Case, x: Inputs) -> None:
    """Leave NaN where the outputs will be allocated."""
    held = [
        torch.full_like(like, float("nan")) for like in (x.gates, x.values, x.values, x.initial, x.initial)
    ]
    del held


def check(case: Case, x: Inputs, backend: str, dtype: str) -> dict[str, float]:
    """Errors of states and gradients at this very shape, on the corners that `exact` can afford.

    RuntimeError if one is over its bound or anything anywhere is not finite. Outputs are poisoned first.
    """
    _poison(case, x)
    states, final = forward(case, x, backend)
    d_gates, d_values, d_initial = backward(case, x, states, backend)
    got = {"states": states, "d_gates": d_gates, "d_values": d_values}
    for name, tensor in {**got, "final": final, "d_initial": d_initial}.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RuntimeError(f"{name}: not finite at {case}")
    want = exact(case.recurrence, corner(x.gates), corner(x.values), corner(x.grad_states))
    errors = {
        name: relative_rms(corner(tensor), true)
        for (name, tensor), true in zip(got.items(), want, strict=True)
    }
    for name, error in errors.items():
        bound = BOUNDS[dtype][name != "states"]
        if not error <= bound:
            raise RuntimeError(
                f"{name}: error {error:.1e} against float64 at {case}, expected at most {bound:.0e}"
            )
    return errors


def _extra_memory(case: Case, x: Inputs, backend: str) -> int:
    """Peak bytes of a training step through autograd beyond inputs, outputs and their gradients."""
    gates, values = (tensor.detach().requires_grad_() for tensor in (x.gates, x.values))

    def run() -> tuple[Tensor, ...]:
        states, final = forward(case, x._replace(gates=gates, values=values), backend)
        return states, final, *torch.autograd.grad(states, (gates, values), x.grad_states)

    return cuda.extra_memory(run)


def measure(
    case: Case, dtype: str, device: torch.device, repeats: int, copy: dict[str, Any]
) -> dict[str, Any]:
    """Check a case, then time it: forward, backward, and both one after the other as in training."""
    backend = choose_backend(BACKENDS.get(device.type, "auto"), device, DTYPES[dtype])
    element = DTYPES[dtype].itemsize
    least = case.bytes(element)
    sets = [draw(case, device, DTYPES[dtype], seed) for seed in range(set_count(device, least["forward"]))]
    errors = check(case, sets[0], backend, dtype)
    free(device)
    with_states = list(zip(sets, (forward(case, x, backend)[0] for x in sets), strict=True))
    calls: dict[str, list[cuda.Call]] = {
        "forward": [partial(forward, case, x, backend) for x in sets],
        "backward": [partial(backward, case, x, states, backend) for x, states in with_states],
        "both": [partial(_both, case, x, backend) for x in sets],
    }
    row: dict[str, Any] = {
        **case._asdict(),
        "dtype": dtype,
        "backend": backend,
        "sets": len(sets),
        "errors": errors,
    }
    for name in PASSES:
        row[name] = against_copy(time_calls(calls[name], repeats, device), least[name], copy)
    if device.type == "cuda":
        extra = _extra_memory(case, sets[0], backend)
        row["extra_memory"] = {"bytes": extra, "percent_of_gates": 100 * extra / least["gates"]}
    return row


def _both(case: Case, x: Inputs, backend: str) -> object:
    states, final = forward(case, x, backend)
    return states, final, backward(case, x, states, backend)


def run(
    cases: list[Case], *, dtype: str, device: torch.device, repeats: int, copy: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Measure the cases one after another; one that is wrong or cannot run is a row with the reason ("failed")."""
    for case in cases:
        try:
            yield measure(case, dtype, device, repeats, copy)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            yield {**case._asdict(), "dtype": dtype, "failed": " ".join(str(error).split())[:300]}
        free(device)


def default_cases() -> list[Case]:
    """What is measured unless something else is asked for."""
    usual = parse_shapes(DEFAULT_SHAPES, parse_sizes(DEFAULT_SIZES))
    return usual + parse_shapes(ODD_SHAPES, parse_sizes(ODD_SIZES))


def check_dtype(dtype: str) -> None:
    """ValueError unless it names a measured dtype."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(map(repr, DTYPES))}")


def record(
    rows: list[dict[str, Any]],
    others: dict[str, dict[str, Any]],
    *,
    copy: dict[str, Any],
    dtype: str,
    command: str,
    device: torch.device,
) -> dict[str, Any]:
    """What is kept of a measurement: date, place, versions, the copy, our cases and the rivals."""
    what = (
        "forward and backward of one scan, softmax gates, on sets of inputs that push one another out of the cache; "
        "milliseconds; bytes are the least that a pass must move, in percent of the copy's speed"
    )
    top = header("scan", what, command, device)
    bounds = dict(zip(("states", "gradients"), BOUNDS[dtype], strict=True))
    return {
        **top,
        "passes": list(PASSES),
        "dtype": dtype,
        "bounds": bounds,
        "copy": copy,
        "cases": rows,
        "rivals": others,
    }
