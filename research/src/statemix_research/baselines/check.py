"""Are the rivals right on this device? Every fast operation against a plain float64 loop, outputs and gradients.

A rival's numbers count only where this passes. Layers around the operations are plain torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from statemix_research.baselines import operations
from statemix_research.baselines.check_cases import CASES, FULL, Case, Outputs, T, Tensors


@dataclass(frozen=True)
class Check:
    """One comparison; errors are relative, in root mean square."""

    rival: str
    """Its name in `statemix.nn.MIXERS`."""
    operation: str
    runs: str
    """What the layer computes it with on this device; empty when that failed."""
    dtype: str
    bound: float
    output_error: float
    """The largest of the outputs and the final state."""
    gradient_errors: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    """Why another way than the kernel was compared, or what went wrong."""

    @property
    def passed(self) -> bool:
        """Whether every error is within the bound (NaN is not)."""
        return all(error <= self.bound for error in (self.output_error, *self.gradient_errors.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, which has no NaN: null, beside "passed": false."""
        errors = {name: _finite(error) for name, error in self.gradient_errors.items()}
        found = {"output_error": _finite(self.output_error), "gradient_errors": errors, "passed": self.passed}
        return asdict(self) | found


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def chosen(names: Iterable[str]) -> list[Case]:
    """The cases of some rivals, or of all, in the order of `statemix.nn.MIXERS`; ValueError for an unknown one."""
    names, known = list(names), list(dict.fromkeys(case.rival for case in CASES))
    for name in names:
        if name not in known:
            raise ValueError(f"rivals: got {name!r}, expected some of {', '.join(known)}")
    return [case for case in CASES if case.rival in (names or known)]


def check(case: Case, device: torch.device) -> Check:
    """One rival's fast operation against its loop, on the same numbers, both on the device."""
    runs, reason = way(case, device)
    precision = FULL if runs == operations.CHUNKED else case.precision
    dtype, bound = precision[device.type]
    facts: dict[str, Any] = {
        "rival": case.rival,
        "operation": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "bound": bound,
    }
    inputs = drawn(case, dtype, device)
    want = outputs_and_gradients(case.loop, {name: x.double() for name, x in inputs.items()})
    try:
        got = outputs_and_gradients(case.fast, inputs)
    except Exception as error:  # other people's code: whatever it raises is the answer
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        return Check(**facts, runs="", output_error=float("nan"), reason=text)
    errors = [relative(one, other) for one, other in zip(got, want, strict=True)]
    outputs, gradients = errors[: -len(inputs)], errors[-len(inputs) :]
    named = dict(zip(inputs, gradients, strict=True))
    worst = float(torch.tensor(outputs).max())
    return Check(**facts, runs=runs, output_error=worst, gradient_errors=named, reason=reason)


def way(case: Case, device: torch.device) -> tuple[str, str | None]:
    """What computes a case on a device, and why its kernel does not, or None."""
    if case.kernel not in operations.OPERATIONS:
        return case.kernel, None
    return operations.explain_way(case.kernel, "auto", device, T)


def drawn(case: Case, dtype: torch.dtype, device: torch.device) -> Tensors:
    """The inputs of a case: numbers that `dtype` holds exactly, states and `case.floats` in float32."""
    generator = torch.Generator().manual_seed(0)
    inputs = {name: x.to(dtype) for name, x in case.inputs(generator).items()}
    return {
        name: x.to(device, torch.float32 if name.startswith("state") or name in case.floats else dtype)
        for name, x in inputs.items()
    }


def outputs_and_gradients(function: Callable[..., Outputs], inputs: Tensors) -> list[Tensor]:
    """Outputs, final states and the gradients of all inputs, for fixed random gradients of the outputs."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = function(**leaves)
        generator = torch.Generator().manual_seed(1)
        draws = [torch.randn(y.shape, generator=generator).bfloat16() for y in outputs]  # exact in any dtype
        directions = [one.to(y.device, y.dtype) for one, y in zip(draws, outputs, strict=True)]
        gradients = torch.autograd.grad(outputs, list(leaves.values()), directions)
    return [x.detach() for x in (*outputs, *gradients)]


def relative(got: Tensor, want: Tensor) -> float:
    """The error in root mean square, relative to what is wanted."""
    return float((got.double() - want).norm() / want.norm())
