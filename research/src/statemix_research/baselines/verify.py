"""Verifies the baselines on a device: every fast operation against its plain float64 loop, outputs and gradients.

A baseline's results count only where this passes. Layers around the operations are plain torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix_research.baselines import chunked, kernels, recurrences
from statemix_research.baselines.attention import attend
from statemix_research.baselines.lru import complex_scan
from statemix_research.baselines.pdssm import batched_permutation_diagonal

Tensors = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Precision = dict[str, tuple[torch.dtype, float]]
Draw = torch.Generator

B, T, H, K, N = 2, 130, 2, 64, 32
"""Batch, time (over two chunks of 64), heads, the size of keys and values, the size of diagonal states."""

HALF: Precision = {"cuda": (torch.bfloat16, 2e-2), "cpu": (torch.float32, 1e-4)}
FULL: Precision = {"cuda": (torch.float32, 1e-4), "cpu": (torch.float32, 1e-4)}
TENSOR_CORES: Precision = {"cuda": (torch.float32, 5e-3), "cpu": (torch.float32, 1e-4)}
"""By type of device: the dtype in which a baseline is trained there, and the largest relative error.

cuDNN rounds to TF32. A mistake shows as an error of order 1."""


class Comparison(NamedTuple):
    """What is compared: `fast` and `loop` take the inputs by name and return outputs and final states."""

    baseline: str
    operation: str
    kernel: str
    """A key of `kernels.OPERATIONS`, or what else computes it."""
    precision: Precision
    inputs: Callable[[Draw], Tensors]
    fast: Callable[..., Outputs]
    loop: Callable[..., Outputs]
    floats: tuple[str, ...] = ()
    """Inputs that stay in float32, besides states."""


@dataclass(frozen=True)
class Check:
    """Result of one comparison; errors are relative, in root mean square."""

    baseline: str
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
    """Why the kernel was not compared, or what failed."""

    @property
    def passed(self) -> bool:
        """Whether every error is within the bound (NaN is not)."""
        return all(error <= self.bound for error in (self.output_error, *self.gradient_errors.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, which has no NaN: null, beside "passed": false."""
        errors = {"": self.output_error} | self.gradient_errors
        finite = {name: error if math.isfinite(error) else None for name, error in errors.items()}
        return asdict(self) | {
            "output_error": finite.pop(""), "gradient_errors": finite, "passed": self.passed
        }  # fmt: skip


def select(names: Iterable[str]) -> list[Comparison]:
    """The comparisons of some baselines, or of all, in the registry's order; ValueError for an unknown name."""
    names, known = list(names), list(dict.fromkeys(one.baseline for one in COMPARISONS))
    for name in names:
        if name not in known:
            raise ValueError(f"baselines: got {name!r}, expected some of {', '.join(known)}")
    return [one for one in COMPARISONS if one.baseline in (names or known)]


def check(comparison: Comparison, device: torch.device) -> Check:
    """Compare a fast operation with its loop on the same numbers, both on the device."""
    runs, reason = implementation(comparison, device)
    precision = FULL if runs == kernels.CHUNKED else comparison.precision
    dtype, bound = precision[device.type]
    result = partial(
        Check, comparison.baseline, comparison.operation, dtype=str(dtype).removeprefix("torch."), bound=bound
    )
    inputs = draw_inputs(comparison, dtype, device)
    want = outputs_and_gradients(comparison.loop, {name: x.double() for name, x in inputs.items()})
    try:
        got = outputs_and_gradients(comparison.fast, inputs)
    except Exception as error:  # a foreign kernel may raise anything: that is the result
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        return result(runs="", output_error=float("nan"), reason=text)
    errors = [relative_error(one, other) for one, other in zip(got, want, strict=True)]
    outputs, gradients = errors[: -len(inputs)], dict(zip(inputs, errors[-len(inputs) :], strict=True))
    largest = float(torch.tensor(outputs).max())  # NaN wins
    return result(runs=runs, output_error=largest, gradient_errors=gradients, reason=reason)


def implementation(comparison: Comparison, device: torch.device) -> tuple[str, str | None]:
    """What computes an operation on a device, and why its kernel does not, or None."""
    if comparison.kernel not in kernels.OPERATIONS:
        return comparison.kernel, None
    return kernels.explain(comparison.kernel, "auto", device, T)


def draw_inputs(comparison: Comparison, dtype: torch.dtype, device: torch.device) -> Tensors:
    """The inputs of a comparison: numbers that `dtype` holds exactly, states and `floats` in float32."""
    inputs = {
        name: x.to(device, dtype) for name, x in comparison.inputs(torch.Generator().manual_seed(0)).items()
    }
    wide = {name: x.float() for name, x in inputs.items() if "state" in name or name in comparison.floats}
    return inputs | wide


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


def relative_error(got: Tensor, want: Tensor) -> float:
    """The root-mean-square error, relative to that of `want`."""
    return float((got.double() - want).norm() / want.norm())


def _normal(draw: Draw, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def _uniform(draw: Draw, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=draw, dtype=torch.float64)


def _keys(draw: Draw, steps: int) -> Tensor:
    return F.normalize(_normal(draw, B, steps, H, K), dim=-1)


def _simple_gla(draw: Draw) -> Tensors:
    q, k, v = (_normal(draw, B, T, H, K) * size for size in (K**-0.5, 1.0, 0.1))
    return {"q": q, "k": k, "v": v, "g": -_uniform(draw, B, T, H), "initial_state": _normal(draw, B, H, K, K)}


def _delta(draw: Draw, *, gated: bool, factors: int) -> Tensors:
    steps = T * factors
    inputs = {"q": _keys(draw, T), "k": _keys(draw, steps), "v": _normal(draw, B, steps, H, K)}
    inputs["beta"] = 2 * _uniform(draw, B, steps, H)
    if gated:
        inputs["g"] = -0.2 * _uniform(draw, B, T, H)
    return inputs | {"initial_state": _normal(draw, B, H, K, K)}


def _rwkv7(draw: Draw) -> Tensors:
    removed = _keys(draw, T)
    return {
        "r": _normal(draw, B, T, H, K) * K**-0.5,
        "w": -math.exp(-0.5) * _uniform(draw, B, T, H, K),
        "k": _normal(draw, B, T, H, K) * 0.5,
        "v": _normal(draw, B, T, H, K),
        "a": -removed,
        "b": removed * _uniform(draw, B, T, H, K),
        "initial_state": _normal(draw, B, H, K, K),
    }


def _mlstm(draw: Draw) -> Tensors:
    sizes = {"q": 1.0, "k": K**-0.5, "v": 1.0}
    inputs = {name: _normal(draw, B, T, H, K) * size for name, size in sizes.items()}
    inputs |= {"i": _normal(draw, B, T, H), "f": 3 + _normal(draw, B, T, H)}
    shapes = {"state_c": (B, H, K, K), "state_n": (B, H, K), "state_m": (B, H)}
    return inputs | {name: _normal(draw, *shape) for name, shape in shapes.items()}


def _slstm(draw: Draw) -> Tensors:
    states = {f"state_{name}": _normal(draw, B, H, N) for name in "hc"}
    states |= {"state_n": 1 + _uniform(draw, B, H, N), "state_m": _normal(draw, B, H, N)}
    return {"gates": _normal(draw, B, T, 4, H, N), "recurrent": _normal(draw, 4, H, N, N) * N**-0.5} | states


def _lru(draw: Draw) -> Tensors:
    size, phase = 0.5 + 0.49 * _uniform(draw, N), 2 * math.pi * _uniform(draw, N)
    eigenvalues = size.unsqueeze(-1) * torch.stack([phase.cos(), phase.sin()], -1)
    return {
        "eigenvalues": eigenvalues,
        "inputs": _normal(draw, B, T, N, 2),
        "initial_state": _normal(draw, B, N, 2),
    }


def _pdssm(draw: Draw) -> Tensors:
    return {
        "weights": _normal(draw, B, T, 8).softmax(-1),
        "dictionary": _normal(draw, 8, N, N),
        "magnitude": 0.5 + 0.5 * _uniform(draw, B, T, N),
        "phase": 2 * math.pi * _uniform(draw, B, T, N),
        "inputs": _normal(draw, B, T, N, 2),
        "initial_state": _normal(draw, B, N, 2),
    }


def _attention(draw: Draw) -> Tensors:
    return {name: _normal(draw, B, T, H, K) for name in "qkv"}


def _lstm(draw: Draw) -> Tensors:
    shapes = {"weight_ih": (4 * N, N), "weight_hh": (4 * N, N), "bias_ih": (4 * N,), "bias_hh": (4 * N,)}
    weights = {f"{name}_l0": _normal(draw, *shape) * N**-0.5 for name, shape in shapes.items()}
    return {"x": _normal(draw, B, T, N), **weights, "state": _normal(draw, B, 2, N)}


def _attention_fast(q: Tensor, k: Tensor, v: Tensor) -> Outputs:
    return (attend(*(one.transpose(1, 2) for one in (q, k, v))).transpose(1, 2),)


def _lstm_fast(x: Tensor, state: Tensor, **weights: Tensor) -> Outputs:
    lstm = nn.LSTM(x.shape[-1], state.shape[-1], batch_first=True, device=x.device, dtype=x.dtype)
    h, c = (one.unsqueeze(0).contiguous() for one in state.unbind(1))
    y, (h, c) = torch.func.functional_call(lstm, weights, (x, (h, c)))
    return y, torch.cat([h, c]).transpose(0, 1)


def _lstm_loop(x: Tensor, state: Tensor, **weights: Tensor) -> Outputs:
    gates = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
    return recurrences.lstm(gates, weights["weight_hh_l0"], initial_state=state)


def _tuple_state(function: Callable[..., tuple[Tensor, Outputs]]) -> Callable[..., Outputs]:
    """A function whose initial state is a tuple, given its parts `state_*` in the order of the inputs."""

    def run(**tensors: Tensor) -> Outputs:
        parts = tuple(x for name, x in tensors.items() if name.startswith("state_"))
        rest = {name: x for name, x in tensors.items() if not name.startswith("state_")}
        y, after = function(**rest, initial_state=parts)
        return y, *after

    return run


def _with_kernel(
    baseline: str, operation: str, inputs: Callable[..., Tensors], factors: int = 1
) -> Comparison:
    """A comparison of a layer that calls `kernels.run_operation`."""
    settings = {"num_householder": factors} if factors > 1 else {}
    name = f"{operation}, {factors} factors" if factors > 1 else operation

    def fast(initial_state: Tensor, **tensors: Tensor) -> Outputs:
        return kernels.run_operation(operation, "auto", initial_state, tensors, **settings)

    def loop(**tensors: Tensor) -> Outputs:
        return kernels.OPERATIONS[operation].loop(**tensors)

    return Comparison(
        baseline, name, operation, HALF, inputs, fast, loop, kernels.OPERATIONS[operation].floats
    )


def _delta_rule(baseline: str, operation: str, *, gated: bool = True, factors: int = 1) -> Comparison:
    return _with_kernel(baseline, operation, partial(_delta, gated=gated, factors=factors), factors)


COMPARISONS: list[Comparison] = [
    Comparison("lstm", "lstm", "torch.nn.LSTM", TENSOR_CORES, _lstm, _lstm_fast, _lstm_loop),
    Comparison("lru", "complex diagonal scan", "affine_scan", FULL, _lru,
               partial(complex_scan, backend="auto"), recurrences.complex_diagonal),
    _with_kernel("mamba2", "simple_gla", _simple_gla),
    _delta_rule("deltanet", "delta_rule", gated=False),
    _delta_rule("gated_deltanet", "gated_delta_rule"),
    _delta_rule("gated_deltaproduct", "gated_delta_product", factors=2),
    _delta_rule("gated_deltaproduct", "gated_delta_product", factors=4),
    _with_kernel("rwkv7", "rwkv7", _rwkv7),
    Comparison("mlstm", "mlstm", "torch, chunks of 64", FULL, _mlstm,
               _tuple_state(chunked.mlstm), _tuple_state(recurrences.mlstm)),
    Comparison("slstm", "slstm", "torch, a loop", FULL, _slstm,
               _tuple_state(recurrences.slstm), _tuple_state(recurrences.slstm)),
    Comparison("attention", "causal attention", "scaled_dot_product_attention", HALF, _attention, _attention_fast,
               lambda **tensors: (recurrences.attention(**tensors),)),
    Comparison("pdssm", "permutation diagonal scan", "torch, a loop", FULL, _pdssm,
               batched_permutation_diagonal, recurrences.permutation_diagonal),
]  # fmt: skip
"""All comparisons, in the order of `BASELINES`."""
