"""What `check` compares: for every rival its fast operation, its loop, and inputs in the range a layer gives them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix_research.baselines import loops
from statemix_research.baselines.attention import attend
from statemix_research.baselines.lru import complex_scan
from statemix_research.baselines.mlstm import chunked
from statemix_research.baselines.operations import OPERATIONS, operate
from statemix_research.baselines.pdssm import scan as pdssm_scan

Tensors = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Precision = dict[str, tuple[torch.dtype, float]]

B, T, H, K, N = 2, 130, 2, 64, 32
"""Batch, time (over two chunks of 64), heads, the size of keys and values, the size of diagonal states."""

HALF: Precision = {"cuda": (torch.bfloat16, 2e-2), "cpu": (torch.float32, 1e-4)}
FULL: Precision = {"cuda": (torch.float32, 1e-4), "cpu": (torch.float32, 1e-4)}
TENSOR_CORES: Precision = {"cuda": (torch.float32, 5e-3), "cpu": (torch.float32, 1e-4)}
"""By type of device: the dtype in which a rival is trained there, and the largest relative error.

cuDNN rounds to TF32. A mistake shows as an error of order 1."""


class Case(NamedTuple):
    """A comparison. `fast` and `loop` take the inputs by name and return outputs and final states."""

    rival: str
    name: str
    kernel: str
    """A key of `OPERATIONS`, or what else computes it."""
    precision: Precision
    inputs: Callable[[torch.Generator], Tensors]
    fast: Callable[..., Outputs]
    loop: Callable[..., Outputs]
    floats: tuple[str, ...] = ()


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _keys(generator: torch.Generator, steps: int) -> Tensor:
    return F.normalize(_normal(generator, B, steps, H, K), dim=-1)


def _simple_gla(draw: torch.Generator) -> Tensors:
    q, k, v = (_normal(draw, B, T, H, K) * size for size in (K**-0.5, 1.0, 0.1))
    return {"q": q, "k": k, "v": v, "g": -_uniform(draw, B, T, H), "state": _normal(draw, B, H, K, K)}


def _delta(draw: torch.Generator, *, gated: bool, factors: int) -> Tensors:
    steps = T * factors
    inputs = {"q": _keys(draw, T), "k": _keys(draw, steps), "v": _normal(draw, B, steps, H, K)}
    inputs["beta"] = 2 * _uniform(draw, B, steps, H)
    if gated:
        inputs["g"] = -0.2 * _uniform(draw, B, T, H)
    return inputs | {"state": _normal(draw, B, H, K, K)}


def _rwkv7(draw: torch.Generator) -> Tensors:
    removed = _keys(draw, T)
    return {
        "r": _normal(draw, B, T, H, K) * K**-0.5,
        "w": -math.exp(-0.5) * _uniform(draw, B, T, H, K),
        "k": _normal(draw, B, T, H, K) * 0.5,
        "v": _normal(draw, B, T, H, K),
        "a": -removed,
        "b": removed * _uniform(draw, B, T, H, K),
        "state": _normal(draw, B, H, K, K),
    }


def _mlstm(draw: torch.Generator) -> Tensors:
    inputs = {
        name: _normal(draw, B, T, H, K) * size for name, size in (("q", 1.0), ("k", K**-0.5), ("v", 1.0))
    }
    inputs |= {"i": _normal(draw, B, T, H), "f": 3 + _normal(draw, B, T, H)}
    return inputs | {
        "state_c": _normal(draw, B, H, K, K), "state_n": _normal(draw, B, H, K), "state_m": _normal(draw, B, H)
    }  # fmt: skip


def _slstm(draw: torch.Generator) -> Tensors:
    states = {f"state_{name}": _normal(draw, B, H, N) for name in "hc"}
    states |= {"state_n": 1 + _uniform(draw, B, H, N), "state_m": _normal(draw, B, H, N)}
    return {"gates": _normal(draw, B, T, 4, H, N), "recurrent": _normal(draw, 4, H, N, N) * N**-0.5} | states


def _lru(draw: torch.Generator) -> Tensors:
    size, phase = 0.5 + 0.49 * _uniform(draw, N), 2 * math.pi * _uniform(draw, N)
    eigenvalues = size.unsqueeze(-1) * torch.stack([phase.cos(), phase.sin()], -1)
    return {"eigenvalues": eigenvalues, "inputs": _normal(draw, B, T, N, 2), "state": _normal(draw, B, N, 2)}


def _pdssm(draw: torch.Generator) -> Tensors:
    return {
        "weights": _normal(draw, B, T, 8).softmax(-1),
        "dictionary": _normal(draw, 8, N, N),
        "magnitude": 0.5 + 0.5 * _uniform(draw, B, T, N),
        "phase": 2 * math.pi * _uniform(draw, B, T, N),
        "inputs": _normal(draw, B, T, N, 2),
        "state": _normal(draw, B, N, 2),
    }


def _attention(draw: torch.Generator) -> Tensors:
    return {name: _normal(draw, B, T, H, K) for name in "qkv"}


def _lstm(draw: torch.Generator) -> Tensors:
    shapes = {
        "weight_ih_l0": (4 * N, N),
        "weight_hh_l0": (4 * N, N),
        "bias_ih_l0": (4 * N,),
        "bias_hh_l0": (4 * N,),
    }
    weights = {name: _normal(draw, *shape) * N**-0.5 for name, shape in shapes.items()}
    return {"x": _normal(draw, B, T, N), **weights, "state": _normal(draw, B, 2, N)}


def _operate(name: str, settings: dict[str, int], /, state: Tensor, **tensors: Tensor) -> Outputs:
    return operate(name, "auto", state, tensors, **settings)


def _run_loop(name: str, /, state: Tensor, **tensors: Tensor) -> Outputs:
    return OPERATIONS[name].loop(**tensors, initial_state=state)


def _states(function: Callable[..., tuple[Tensor, tuple[Tensor, ...]]], **tensors: Tensor) -> Outputs:
    """A function whose state has parts, `state_*` in the order of the inputs."""
    parts = tuple(x for name, x in tensors.items() if name.startswith("state_"))
    y, after = function(
        **{k: x for k, x in tensors.items() if not k.startswith("state_")}, initial_state=parts
    )
    return y, *after


def _lru_fast(eigenvalues: Tensor, inputs: Tensor, state: Tensor) -> Outputs:
    return complex_scan(eigenvalues, inputs, state, "auto")


def _lru_loop(eigenvalues: Tensor, inputs: Tensor, state: Tensor) -> Outputs:
    real, imaginary = eigenvalues.unbind(-1)
    return loops.complex_diagonal(real, imaginary, inputs, initial_state=state)


def _attention_fast(q: Tensor, k: Tensor, v: Tensor) -> Outputs:
    return (attend(*(one.transpose(1, 2) for one in (q, k, v))).transpose(1, 2),)


def _lstm_fast(x: Tensor, state: Tensor, **weights: Tensor) -> Outputs:
    lstm = nn.LSTM(x.shape[-1], state.shape[-1], batch_first=True, device=x.device, dtype=x.dtype)
    h, c = (one.unsqueeze(0).contiguous() for one in state.unbind(1))
    y, (h, c) = torch.func.functional_call(lstm, weights, (x, (h, c)))
    return y, torch.cat([h, c]).transpose(0, 1)


def _lstm_loop(x: Tensor, state: Tensor, **weights: Tensor) -> Outputs:
    gates = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
    return loops.lstm(gates, weights["weight_hh_l0"], initial_state=state)


def _kernel_case(rival: str, operation: str, inputs: Callable[..., Tensors], factors: int = 1) -> Case:
    settings = {"num_householder": factors} if factors > 1 else {}
    name = f"{operation}, {factors} factors" if factors > 1 else operation
    fast, loop = functools.partial(_operate, operation, settings), functools.partial(_run_loop, operation)
    return Case(rival, name, operation, HALF, inputs, fast, loop, OPERATIONS[operation].floats)


def _delta_case(rival: str, operation: str, *, gated: bool = True, factors: int = 1) -> Case:
    return _kernel_case(rival, operation, functools.partial(_delta, gated=gated, factors=factors), factors)


def _states_case(
    rival: str, name: str, how: str, inputs: Callable[..., Tensors], fast: Any, loop: Any
) -> Case:
    return Case(
        rival, name, how, FULL, inputs, functools.partial(_states, fast), functools.partial(_states, loop)
    )


def _direct(function: Any) -> Callable[..., Outputs]:
    """A function of tensors and initial_state, called with `state`."""
    return lambda state, **tensors: function(**tensors, initial_state=state)


CASES: list[Case] = [
    Case("lstm", "lstm", "torch.nn.LSTM", TENSOR_CORES, _lstm, _lstm_fast, _lstm_loop),
    Case("lru", "complex diagonal scan", "affine_scan", FULL, _lru, _lru_fast, _lru_loop),
    _kernel_case("mamba2", "simple_gla", _simple_gla),
    _delta_case("deltanet", "delta_rule", gated=False),
    _delta_case("gated_deltanet", "gated_delta_rule"),
    _delta_case("gated_deltaproduct", "gated_delta_product", factors=2),
    _delta_case("gated_deltaproduct", "gated_delta_product", factors=4),
    _kernel_case("rwkv7", "rwkv7", _rwkv7),
    _states_case("mlstm", "mlstm", "torch, chunks of 64", _mlstm, chunked, loops.mlstm),
    _states_case("slstm", "slstm", "torch, a loop", _slstm, loops.slstm, loops.slstm),
    Case("attention", "causal attention", "scaled_dot_product_attention", HALF, _attention, _attention_fast,
         lambda **tensors: (loops.attention(**tensors),)),
    Case("pdssm", "permutation diagonal scan", "torch, a loop", FULL, _pdssm, _direct(pdssm_scan),
         _direct(loops.permutation_diagonal)),
]  # fmt: skip
"""All comparisons, in the order of `statemix.nn.MIXERS`."""
