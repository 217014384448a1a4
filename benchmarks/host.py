"""The host's own time: calls so small that the device waits for the launches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from benchmarks.measure import Setup
from benchmarks.records import Record, header
from statemix.nn import BDLRU, HLRU
from statemix.ops import bdlru_scan, hlru_scan

WHAT = (
    "wall time of one call in microseconds, launched one after another without a CUDA graph and waited for once at the "
    "end: B = 1, T = 64, 16 channels"
)

LENGTH, CHANNELS = 64, 16
"""T, and the rows of all blocks or the channels."""

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "bdlru": lambda m: BDLRU(CHANNELS, block_size=m, num_blocks=CHANNELS // m),
    "hlru": lambda m: HLRU(CHANNELS, order=m, num_channels=CHANNELS),
}
"""Layers by recurrence, of block size or order."""

SCANS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"bdlru": bdlru_scan, "hlru": hlru_scan}

DEFAULT_MODELS = "bdlru:1,bdlru:4,bdlru:16,hlru:4"

CALLS = 200
"""Calls of a sample."""

Call = Callable[[], object]


def scan_calls(recurrence: str, m: int, setup: Setup) -> dict[str, Call]:
    """The scan alone, and with its gradient."""
    inner = (CHANNELS // m, m) if recurrence == "bdlru" else (CHANNELS,)
    options: dict[str, Any] = {"device": setup.device, "dtype": setup.torch_dtype}
    leaves = [
        torch.randn(1, LENGTH, m + 1, *inner, **options).movedim(2, -1),
        torch.randn(1, LENGTH, *inner, **options),
    ]
    plain = [leaf.clone() for leaf in leaves]
    grad = torch.randn_like(leaves[1])
    for leaf in leaves:
        leaf.requires_grad_()

    @torch.no_grad()
    def scan() -> None:
        SCANS[recurrence](*plain)

    def both() -> None:
        torch.autograd.grad(SCANS[recurrence](*leaves)[0], leaves, grad)

    return {"scan": scan, "scan, gradient": both}


def layer_calls(recurrence: str, m: int, setup: Setup) -> dict[str, Call]:
    """A layer that records its gradient, the same with its gradient, and one token without."""
    layer: Any = MODELS[recurrence](m).to(setup.device, setup.torch_dtype)
    options: dict[str, Any] = {"device": setup.device, "dtype": setup.torch_dtype}
    x = torch.randn(1, LENGTH, CHANNELS, requires_grad=True, **options)
    grad, token, state = torch.randn_like(x), torch.randn(1, CHANNELS, **options), layer.initial_state(1)
    leaves = [x, *layer.parameters()]

    def both() -> None:
        layer(x)[0].backward(grad)
        for leaf in leaves:
            leaf.grad = None

    def on_one_thread() -> None:
        with torch.autograd.set_multithreading_enabled(False):
            both()

    @torch.no_grad()
    def step() -> None:
        layer.step(token, state)

    calls: dict[str, Call] = {"layer": lambda: layer(x), "layer, gradient": both}
    return calls | {"layer, gradient, on one thread": on_one_thread, "step": step}


def product_calls(recurrence: str, m: int, setup: Setup) -> dict[str, Call]:
    """What torch takes for the two matrix products of a layer alone, with their gradients."""
    options: dict[str, Any] = {"device": setup.device, "dtype": setup.torch_dtype}
    rows = CHANNELS * (m + 2)
    inputs, outputs = nn.Linear(CHANNELS, rows, **options), nn.Linear(rows, CHANNELS, bias=False, **options)
    x = torch.randn(1, LENGTH, CHANNELS, requires_grad=True, **options)
    grad, leaves = torch.randn_like(x), [x, *inputs.parameters(), *outputs.parameters()]

    def both() -> None:
        outputs(inputs(x)).backward(grad)
        for leaf in leaves:
            leaf.grad = None

    return {"products, gradient": both}


def measure(recurrence: str, m: int, setup: Setup) -> Record:
    """Microseconds of every call: median and quartiles."""
    calls = scan_calls(recurrence, m, setup) | layer_calls(recurrence, m, setup)
    calls |= product_calls(recurrence, m, setup)
    return {
        "dtype": setup.dtype,
        "us": {name: _microseconds(call, setup.repeats) for name, call in calls.items()},
    }


def _microseconds(call: Call, repeats: int) -> Record:
    """Of samples of `CALLS` calls each; the timer waits for the device before and after a sample."""
    timer = Timer("call()", globals={"call": call})
    timer.timeit(CALLS)
    samples = sorted(1e6 * timer.timeit(CALLS).mean for _ in range(repeats))
    low, median, high = statistics.quantiles(samples, n=4) if repeats > 1 else samples * 3
    return {
        "median": median,
        "min": samples[0],
        "lower_quartile": low,
        "upper_quartile": high,
        "samples": repeats,
    }


def new_record(setup: Setup) -> Record:
    """A record without rows."""
    return {**header("host", WHAT, setup.device), "layers": []}
