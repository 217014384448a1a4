"""Whole layers, forward and backward: BD-LRU beside its own matrix products and beside layers of as many parameters."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from statemix_research.baselines.passes import layer_passes
from torch import Tensor, nn

from benchmarks.layer_baselines import BASELINES
from benchmarks.measure import Setup, free, measure_baseline
from benchmarks.records import Record, header
from statemix.analysis import parameters
from statemix.nn import BDLRU

WHAT = (
    "forward, and forward + backward with the gradients of the input and of all weights, of one layer; milliseconds; "
    "on a GPU replayed as a CUDA graph, launched: forward + backward launched call by call; products: the layer's "
    "matrix products alone"
)

SLACK = 0.05
"""How far apart, in parameters, two layers may be that count as equally large."""


class Preset(NamedTuple):
    """Block sizes of the BD-LRU layers, their parameters (None: by their width), and the baselines."""

    block_sizes: tuple[int, ...]
    parameters: int | None
    baselines: tuple[str, ...]


COMPARED = 4
"""m of the BD-LRU layer that baselines are compared with."""

PRESETS = {
    "layer": Preset((COMPARED,), None, tuple(BASELINES)),
    "paper": Preset(
        (1, 2, 4, 8, 16), 33_000_000, tuple(name for name in BASELINES if name != "RWKV7 default")
    ),
}


class Sizes(NamedTuple):
    """Width of the model, B and T."""

    dim: int
    batch: int
    length: int


def blocks_for(dim: int, m: int, parameters: int) -> int:
    """The N of a BD-LRU layer nearest to a number of parameters: a multiple of 8 if that is near enough."""
    exact = parameters / (m * ((dim + 1) * (m + 1) + 2 * dim))
    rounded = 8 * max(1, round(exact / 8))
    return rounded if abs(rounded / exact - 1) < SLACK / 2 else max(1, round(exact))


def time_layer(
    layer: nn.Module, width: int, sizes: Sizes, setup: Setup, *, cuda_graph: bool = True
) -> Record:
    """Forward, and forward with all gradients, which are checked first. RuntimeError if they are wrong."""
    shape = (sizes.batch, sizes.length, width)
    passes = layer_passes(layer, shape, setup.device, setup.torch_dtype)
    row: Record = {"parameters": parameters(layer), "width": width, "zero_gradients": passes.zero_gradients}
    row["forward"] = setup.sample([passes.forward], cuda_graph=cuda_graph)
    row["both"] = setup.sample([passes.both], cuda_graph=cuda_graph)
    if setup.device.type == "cuda":
        row["launched"] = setup.sample([passes.both], cuda_graph=False)
    row["tokens_per_s"] = 1000 * sizes.batch * sizes.length / row["both"]["ms"]["median"]
    return row


def time_products(layer: nn.Module, sizes: Sizes, setup: Setup) -> Record:
    """The layer's matrix products alone, on as many tokens: forward, and with the two of each backward."""
    rows = sizes.batch * sizes.length
    triples = []
    for weight in (p.detach() for p in layer.parameters() if p.dim() == 2):
        x, grad = (torch.randn(rows, n, device=weight.device, dtype=weight.dtype) for n in weight.shape[::-1])
        triples.append((weight, x, grad))

    def forward() -> list[Tensor]:
        return [x @ weight.t() for weight, x, _ in triples]

    def both() -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(x @ weight.t(), grad @ weight, grad.t() @ x) for weight, x, grad in triples]

    return {"forward": setup.sample([forward]), "both": setup.sample([both])}


def name_of(m: int, hard: bool = False) -> str:
    """How a BD-LRU layer is called in a record."""
    return f"BDLRU m={m}" + ", hard" * hard


def measure(m: int, parameters: int | None, sizes: Sizes, setup: Setup, *, hard: bool = False) -> Record:
    """A BD-LRU layer near a number of parameters (None: by its width), and its matrix products."""
    blocks = None if parameters is None else blocks_for(sizes.dim, m, parameters)
    layer = BDLRU(
        sizes.dim, block_size=m, num_blocks=blocks, hard=hard, learned_initial_state=hard, device=setup.device
    )
    row: Record = {"name": name_of(m, hard), "m": m, "hard": hard, "blocks": layer.num_blocks}
    row |= time_layer(layer, sizes.dim, sizes, setup)
    free(setup.device)
    row["products"] = time_products(layer, sizes, setup)
    row["times_products"] = row["both"]["ms"]["median"] / row["products"]["both"]["ms"]["median"]
    return row


def run_baseline(
    name: str, compared: Record | None, layers: list[Record], sizes: Sizes, setup: Setup
) -> Record:
    """A baseline at the parameters of the compared layer, or why it was skipped.

    Where it cannot be sized, another BD-LRU layer is sized to it, measured, and appended to `layers`.
    """
    baseline = BASELINES[name]

    def measured(compared: Record) -> Record:
        units = baseline.units(sizes.dim, compared["parameters"])
        layer, width = baseline.build(sizes.dim, units), baseline.width(sizes.dim, units)
        row = {"units": units, **time_layer(layer, width, sizes, setup, cuda_graph=baseline.cuda_graph)}
        if abs(row["parameters"] / compared["parameters"] - 1) > SLACK:
            free(setup.device)
            compared = {**measure(compared["m"], row["parameters"], sizes, setup), "sized_to": name}
            layers.append(compared)
        forward, both = (row[p]["ms"]["median"] / compared[p]["ms"]["median"] for p in ("forward", "both"))
        against = {field: compared[field] for field in ("name", "blocks", "parameters")}
        return row | {"relative_time": both, "forward_relative_time": forward, "against": against}

    why_not = "no BD-LRU layer to compare it with"
    return measure_baseline(
        baseline, {}, setup.device, why_not if compared is None else partial(measured, compared)
    )


def new_record(preset: str, sizes: Sizes, setup: Setup) -> Record:
    """A record without rows."""
    shape = {"preset": preset, **sizes._asdict(), "dtype": setup.dtype}
    return {**header("layer", WHAT, setup.device), **shape, "layers": [], "baselines": {}}
