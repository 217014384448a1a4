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

from statemix_research.baselines import chunked, kernels, recurrences, ssd
from statemix_research.baselines.attention import attend
from statemix_research.baselines.lru import complex_scan
from statemix_research.baselines.pdssm import batched_permutation_diagonal

Tensors = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Precision = dict[str, tuple[torch.dtype, float]]

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
    inputs: Callable[[], Tensors]
    """Draws them in float64."""
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = comparison.inputs()
    inputs = {name: x.to(device, dtype) for name, x in inputs.items()}
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


HEADS, STATE = (B, T, H, K), (B, H, K, K)
normal, uniform = (partial(draw, dtype=torch.float64) for draw in (torch.randn, torch.rand))


def _unit(*shape: int) -> Tensor:
    return F.normalize(normal(*shape), dim=-1)


def _delta(factors: int, *, gated: bool = True, size: int = K) -> Tensors:
    written = (B, T * factors, H, size)
    inputs = {
        "q": _unit(B, T, H, size),
        "k": _unit(*written),
        "v": normal(written),
        "beta": 2 * uniform(written[:3]),
    }
    if gated:
        inputs["g"] = -0.2 * uniform(B, T, H)
    return inputs | {"initial_state": normal(B, H, size, size)}


def _rwkv7() -> Tensors:
    inputs = {
        "r": normal(HEADS) / K**0.5, "w": -math.exp(-0.5) * uniform(HEADS), "k": 0.5 * normal(HEADS),
        "v": normal(HEADS), "a": -_unit(*HEADS),
    }  # fmt: skip
    return inputs | {"b": -uniform(HEADS) * inputs["a"], "initial_state": normal(STATE)}


INPUTS: dict[str, Callable[[], Tensors]] = {
    "simple_gla": lambda: {
        "q": normal(HEADS) / K**0.5, "k": normal(HEADS), "v": 0.1 * normal(HEADS), "g": -uniform(B, T, H),
        "initial_state": normal(STATE),
    },
    "ssd": lambda: {
        "x": normal(HEADS), "dt": 0.1 * uniform(B, T, H), "a": -16 * uniform(H), "b": normal(B, T, K),
        "c": normal(B, T, K) / K**0.5, "state": normal(STATE),
    },
    "mlstm": lambda: {
        "q": normal(HEADS), "k": normal(HEADS) / K**0.5, "v": normal(HEADS), "i": normal(B, T, H),
        "f": normal(B, T, H) + 3, "state_c": normal(STATE), "state_n": normal(STATE[:3]), "state_m": normal(STATE[:2]),
    },
    "slstm": lambda: {
        "gates": normal(B, T, 4, H, N), "recurrent": normal(4, H, N, N) / N**0.5, "state_h": normal(B, H, N),
        "state_c": normal(B, H, N), "state_n": uniform(B, H, N) + 1, "state_m": normal(B, H, N),
    },
    "lru": lambda: {
        "eigenvalues": 0.95 * _unit(N, 2), "inputs": normal(B, T, N, 2), "initial_state": normal(B, N, 2),
    },
    "pdssm": lambda: {
        "weights": normal(B, T, 8).softmax(-1), "dictionary": normal(8, N, N),
        "magnitude": 0.5 * uniform(B, T, N) + 0.5, "phase": 2 * math.pi * uniform(B, T, N),
        "inputs": normal(B, T, N, 2), "initial_state": normal(B, N, 2),
    },
    "attention": lambda: {name: normal(HEADS) for name in "qkv"},
    "lstm": lambda: {
        "x": normal(B, T, N),
        **{f"weight_{side}h_l0": normal(4 * N, N) / N**0.5 for side in "ih"},
        **{f"bias_{side}h_l0": normal(4 * N) / N**0.5 for side in "ih"},
        "state": normal(B, 2, N),
    },
}  # fmt: skip


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
    baseline: str, operation: str, inputs: Callable[[], Tensors], factors: int = 1
) -> Comparison:
    """A comparison of a layer that calls `kernels.run_operation`."""
    settings = {"num_householder": factors} if factors > 1 else {}
    name = f"{operation}, {factors} factors" if factors > 1 else operation
    loop, floats = kernels.OPERATIONS[operation].loop, kernels.OPERATIONS[operation].floats

    def fast(initial_state: Tensor, **tensors: Tensor) -> Outputs:
        return kernels.run_operation(operation, "auto", initial_state, tensors, **settings)

    return Comparison(baseline, name, operation, HALF, inputs, fast, loop, floats)


_SSD = Comparison("mamba2", "ssd", ssd.KERNEL, HALF, INPUTS["ssd"], ssd.scan, ssd.reference, ("dt", "a"))

COMPARISONS: list[Comparison] = [
    Comparison("lstm", "lstm", "torch.nn.LSTM", TENSOR_CORES, INPUTS["lstm"], _lstm_fast, _lstm_loop),
    Comparison("lru", "complex diagonal scan", "affine_scan", FULL, INPUTS["lru"],
               partial(complex_scan, backend="auto"), recurrences.complex_diagonal),
    _with_kernel("mamba2", "simple_gla", INPUTS["simple_gla"]),
    *([_SSD] if ssd.INSTALLED and torch.cuda.is_available() else []),
    _with_kernel("deltanet", "delta_rule", partial(_delta, 1, gated=False)),
    _with_kernel("gated_deltanet", "gated_delta_rule", partial(_delta, 1)),
    _with_kernel("gated_deltanet", "gated_delta_rule", partial(_delta, 1, size=96))._replace(
        operation="gated_delta_rule, heads of 96"  # that of the language models
    ),
    _with_kernel("gated_deltaproduct", "gated_delta_product", partial(_delta, 2), 2),
    _with_kernel("gated_deltaproduct", "gated_delta_product", partial(_delta, 4), 4),
    _with_kernel("rwkv7", "rwkv7", _rwkv7),
    Comparison("mlstm", "mlstm", "torch, chunks of 64", FULL, INPUTS["mlstm"],
               _tuple_state(chunked.mlstm), _tuple_state(recurrences.mlstm)),
    Comparison("slstm", "slstm", "torch, a loop", FULL, INPUTS["slstm"],
               _tuple_state(recurrences.slstm), _tuple_state(recurrences.slstm)),
    Comparison("attention", "causal attention", "scaled_dot_product_attention", HALF, INPUTS["attention"],
               _attention_fast, lambda **tensors: (recurrences.attention(**tensors),)),
    Comparison("pdssm", "permutation diagonal scan", "torch, a loop", FULL, INPUTS["pdssm"],
               batched_permutation_diagonal, recurrences.permutation_diagonal),
]  # fmt: skip
"""All comparisons, in the order of `BASELINES`."""
